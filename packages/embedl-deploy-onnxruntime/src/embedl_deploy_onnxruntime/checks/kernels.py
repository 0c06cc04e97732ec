"""Rules about operators that the runtime has no integer kernel for, or a slow one."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    array,
    attribute,
    consumers,
    fixed_sizes_of,
    input_of,
    nodes_of,
    producer,
    sizes_of,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_onnxruntime.checks.walks import (
    INTEGER,
    RECTIFIERS,
    is_mover,
    quantizer_behind,
    reads_integers,
)

if TYPE_CHECKING:
    import onnx_ir as ir

_WITH_WEIGHTS = ("ConvTranspose", "LSTM", "GRU", "RNN")
#: Up to so many channels in each group, a grouped convolution in INT8 was slower than in float32.
_CHANNELS = 16


class IntegerKernels(Rule):
    """ORT-14. ONNX Runtime 1.31: DequantizeLinear and QuantizeLinear run around it."""

    id = "ORT-14"
    severity = Severity.INFO
    title = "Operators that are quantized at both sides have an integer kernel."
    remedy = "Leave it in float, or write it in operators that have one: GlobalAveragePool, x · Sigmoid(x)."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at operators between DequantizeLinear and QuantizeLinear, at weights, and at factors of Gemm."""
        constants = Constants()
        for node in model.graph.all_nodes():
            if node.op_type in (QUANTIZE, DEQUANTIZE) or not node.inputs:
                continue
            if node.op_type in _WITH_WEIGHTS:
                if any(_is_weight(value, constants) for value in node.inputs[1:]):
                    message = "computed in float, and its weight is dequantized in every run"
                    yield Violation(node, message, Severity.WARNING)
            elif node.op_type == "Gemm" and input_of(node, 2) is not None and reads_integers(node):
                factors = {name: attribute(node, name, 1.0) for name in ("alpha", "beta")}
                if wrong := [f"{name} is {value:g}" for name, value in factors.items() if value != 1]:
                    yield Violation(node, f"computed in float: {wrong[0]}; expected 1, or no bias", Severity.WARNING)
            elif node.op_type in INTEGER or node.op_type in RECTIFIERS or is_mover(node):
                continue
            elif _is_activation(node.inputs[0], constants) and any(r.op_type == QUANTIZE for r in consumers(node)):
                yield Violation(node, f"{node.op_type} is computed in float{_instead(node)}")


def _is_activation(value: "ir.Value | None", constants: Constants) -> bool:
    return producer(value, DEQUANTIZE) is not None and value not in constants


def _is_weight(value: "ir.Value | None", constants: Constants) -> bool:
    node = producer(value, DEQUANTIZE)
    return node is not None and node.inputs[0] in constants


def _instead(node: "ir.Node") -> str:
    """What to write instead, where something is known."""
    sizes = sizes_of(node.inputs[0])
    stored = array(input_of(node, 1)) if node.op_type == "ReduceMean" else None
    if (
        sizes is not None
        and len(sizes) == 4
        and stored is not None
        and sorted(int(axis) % 4 for axis in stored) == [2, 3]
    ):
        return "; GlobalAveragePool has an integer kernel"
    return ""


class SlowKernels(Rule):
    """ORT-15. ONNX Runtime 1.31 on an x86 processor with VNNI, measured: an integer Softmax takes four to seven times
    as long as one in float, an AveragePool ten to twenty times, a 3×3 convolution of 128 channels in groups of 4, 8 and
    16 channels 3, 1.4 and 1.1 times. Depthwise convolutions between others are faster in INT8.
    """

    id = "ORT-15"
    severity = Severity.WARNING
    title = "Softmax, AveragePool and convolutions with groups of few channels stay in float, where they are faster."
    remedy = "Quantize what follows, not its input and output; attention needs Q/DQ behind its softmax only."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at node units of these operators."""
        for node in nodes_of(model, "Softmax", "AveragePool", "Conv"):
            if not reads_integers(node) or isinstance(quantizer_behind(node), str):
                continue
            if node.op_type != "Conv":
                yield Violation(node, f"the integer kernel of {node.op_type} is slower than that of float32")
                continue
            groups = attribute(node, "group", 1)
            sizes = fixed_sizes_of(node.inputs[1])
            if groups == 1:
                continue
            if sizes is None:
                yield Undecided(node, "the shape of the weight is not known")
            elif 1 < sizes[1] <= _CHANNELS:
                message = f"{groups} groups of {sizes[1]} channels: INT8 is slower than float32 up to {_CHANNELS}"
                yield Violation(node, message)
