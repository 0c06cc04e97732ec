"""Rules about the numbers that tensors are quantized to: zero points, types, and what the operator set can say."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    array,
    attribute,
    block_of,
    input_of,
    is_per_axis,
    nodes_of,
    opset_of,
    producer,
    quantized_type_name,
    quantized_type_of,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.tensorrt.checks.qdq_graph import distinct_quantizers, is_weight

if TYPE_CHECKING:
    import onnx_ir as ir

_TAKEN = frozenset({"INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1"})
_FOUR_BITS = frozenset({"INT4", "UINT4"})


class ZeroPoints(Rule):
    """TRT-Q01. TensorRT for RTX 1.7: zero points that are not zero are refused by the parser, those computed from
    inputs by the builder; none, and a type that differs from its neighbour's, are taken and read as INT8.
    """

    id = "TRT-Q01"
    severity = Severity.ERROR
    title = "Zero points are omitted or all zero, and have the type of the quantized values."
    remedy = "Quantize symmetrically, and write the zero point so that its type is in the file."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every pair of QuantizeLinear and DequantizeLinear, and at those without a partner."""
        constants = Constants()
        for node in distinct_quantizers(model):
            yield from self._of(node, constants)

    def _of(self, node: "ir.Node", constants: Constants) -> Iterator[Violation | Undecided]:
        value = input_of(node, 2)
        written = attribute(node, "output_dtype", 0) if node.op_type == QUANTIZE else 0
        if value is None:
            if node.op_type == QUANTIZE and not written:
                message = "no zero point and no output_dtype: ONNX reads UINT8, TensorRT INT8"
                yield Violation(node, message, Severity.WARNING)
            return
        zeros = array(value)
        if zeros is not None:
            wrong = zeros.astype("float32").ravel()
            wrong = wrong[wrong != 0]
            if wrong.size:
                message = f"{wrong.size} of {zeros.size} zero points are not zero; the first is {wrong[0]:g}"
                yield Violation(node, message)
        elif value not in constants:
            yield Violation(node, f"the zero point {value.name!r} is computed at run time; expected a constant")
        else:
            yield Undecided(node, f"the zero point {value.name!r} is computed in the graph, from constants")
        stored = node.inputs[0] if node.op_type == DEQUANTIZE else None
        other = written or (None if stored is None else stored.dtype)
        if value.dtype is not None and other and int(other) != int(value.dtype):
            numbers = type(value.dtype)(other).name
            message = f"the zero point is {value.dtype.name}, the numbers are {numbers}; ONNX wants one type"
            yield Violation(node, message, Severity.WARNING)


class OperatorSetVersion(Rule):
    """TRT-Q05. TensorRT for RTX 1.7 takes all of them; onnx.checker and ONNX Runtime refuse the file."""

    id = "TRT-Q05"
    severity = Severity.WARNING
    title = "Scales per axis need operator set 13, FP8 needs 19, INT4 and blocks need 21, FP4 needs 23."
    remedy = "Export for a newer operator set: export_onnx chooses it, other exporters have an opset option."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Give the first node of each kind, and how many more there are."""
        here = opset_of(model)
        found: dict[tuple[str, int], list[ir.Node]] = {}
        for node in nodes_of(model, QUANTIZE, DEQUANTIZE):
            for what, needed in self._needs(node):
                if here < needed:
                    found.setdefault((what, needed), []).append(node)
        for (what, needed), nodes in found.items():
            more = f", here and at {len(nodes) - 1} more" if len(nodes) > 1 else ""
            yield Violation(nodes[0], f"{what} since operator set {needed}; the file says {here}{more}")

    def _needs(self, node: "ir.Node") -> Iterator[tuple[str, int]]:
        if is_per_axis(node):
            yield "scales per axis", 13
        name = quantized_type_name(node)
        if name.startswith("FLOAT8"):
            yield "FP8", 19
        if name in _FOUR_BITS:
            yield name, 21
        if name == "FLOAT4E2M1":
            yield "FP4", 23
        if block_of(node):
            yield "blocks", 21


class FourBitsAreWeights(Rule):
    """TRT-Q09. TensorRT for RTX 1.7 takes INT4 activations; NVIDIA documents INT4 for weights only."""

    id = "TRT-Q09"
    severity = Severity.WARNING
    title = "INT4 is for weights only."
    remedy = "Quantize activations to INT8 or FP8, or leave them in float."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at what is dequantized from INT4."""
        constants = Constants()
        for node in nodes_of(model, DEQUANTIZE):
            if quantized_type_name(node) in _FOUR_BITS and not is_weight(node, constants):
                yield Violation(node, "a computed tensor is quantized to four bits; only stored weights can be")


class NumberFormats(Rule):
    """TRT-Q25. TensorRT for RTX 1.7: INT16, UINT16, E5M2 and stored UINT8 or UINT4 are refused by the parser; UINT8
    between QuantizeLinear and DequantizeLinear is taken as INT8, with a warning, so numbers over 127 are cut off.
    """

    id = "TRT-Q25"
    severity = Severity.ERROR
    title = "Tensors are quantized to INT8, INT4, FP8 (E4M3) or FP4 (E2M1)."
    remedy = "Quantize to one of these formats; instead of UINT8, quantize activations symmetrically to INT8."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every QuantizeLinear, and at every DequantizeLinear without one."""
        for node in nodes_of(model, QUANTIZE, DEQUANTIZE):
            if node.op_type == DEQUANTIZE and producer(node.inputs[0], QUANTIZE) is not None:
                continue
            kind = quantized_type_of(node)
            if kind is None:
                yield Undecided(node, "the type of the quantized numbers is not in the file")
            elif input_of(node, 2) is None and node.op_type == QUANTIZE and not attribute(node, "output_dtype", 0):
                continue  # UINT8 by omission, which TensorRT reads as INT8: TRT-Q01
            elif kind.name == "UINT8":
                yield Violation(node, "UINT8: TensorRT reads it as INT8, -128 to 127, or refuses it if it is stored")
            elif kind.name not in _TAKEN and kind.name != "INT32":  # INT32 is TRT-Q08
                yield Violation(node, f"{kind.name}, which TensorRT does not have")
