"""Rules about what stands behind an operator: without QuantizeLinear it is computed in float."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy.artifact import (
    QUANTIZE,
    Constants,
    array,
    attribute,
    consumers,
    input_of,
    nodes_of,
    producer,
    quantized_type_of,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_onnxruntime.checks.walks import (
    INTEGER,
    RECTIFIERS,
    dequantizer,
    label,
    quantizer_behind,
    reads_integers,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: Products run in integers without it (ORT-05 is about their biases); these two are faster in float (ORT-15).
_NEED_NONE = ("Gemm", "MatMul", "Softmax", "AveragePool")
_DEQUANTIZED = "and its weight is dequantized in every run"
#: As the runtime does: a cut may miss the end of the range by this much.
_EPSILON = float(np.finfo(np.float32).eps)


class OutputsQuantized(Rule):
    """ORT-01. ONNX Runtime 1.31: without it the kernel is that of float32, and DequantizeLinear of the weight and of
    the bias run each time.

    Another activation function than a rectifier, an addend, a second reader or an output of the model behind a
    convolution have the same effect. MatMul and Gemm need no QuantizeLinear behind them, but not one among others, and
    one behind a rectifier that alone reads them.
    """

    id = "ORT-01"
    severity = Severity.WARNING
    title = "One QuantizeLinear, and nothing else, reads what an operator computes of quantized tensors."
    remedy = "Quantize the output directly behind the operator, or behind its ReLU, and let all readers share it."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look behind every operator with an integer kernel whose inputs are quantized."""
        constants = Constants()
        for node in nodes_of(model, "Gemm", "MatMul"):
            readers = consumers(node)
            others = len(readers) - 1 + node.outputs[0].is_graph_output()
            if others and any(reader.op_type == QUANTIZE for reader in readers) and reads_integers(node):
                yield Violation(
                    node, f"computed in float, {_DEQUANTIZED}: QuantizeLinear and {others} more read its output"
                )
            elif len(readers) == 1 and not others and (reason := _rectified(readers[0])) and reads_integers(node):
                yield Violation(node, f"computed in float, {_DEQUANTIZED}: {reason}")
        for node in nodes_of(model, *(kind for kind in INTEGER if kind not in _NEED_NONE)):
            if not reads_integers(node) or node.outputs[0] in constants:
                continue
            behind = quantizer_behind(node)
            if isinstance(behind, str):
                weight = f", {_DEQUANTIZED}" if node.op_type == "Conv" else ""
                yield Violation(node, f"computed in float{weight}: {behind}; expected one QuantizeLinear")


def _rectified(reader: "ir.Node") -> str:
    """Why what reads a product keeps it from giving floats: it is a rectifier that is not quantized; empty if not."""
    if reader.op_type not in RECTIFIERS or reader.outputs[0].is_graph_output():
        return ""
    if any(each.op_type == QUANTIZE for each in consumers(reader)):
        return ""
    instead = "LeakyRelu of slope 0" if reader.op_type == "Relu" else "LeakyRelu of slope 1 before it"
    return f"{label(reader)} is read in float; expected {instead}, or QuantizeLinear behind it"


class RectifiersCut(Rule):
    """ORT-02. ONNX Runtime 1.31: a ReLU is left out if the zero point is the smallest number of its type, a Clip if the
    range ends where it cuts. Otherwise it and the operator before it run in float.
    """

    id = "ORT-02"
    severity = Severity.WARNING
    title = "The range of the quantizer behind a ReLU or Clip ends where it cuts."
    remedy = "Quantize to UINT8 with zero point 0 (INT8: -128), and for a Clip with its limits as the range."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every rectifier with quantized numbers before and behind it."""
        constants = Constants()
        for node in nodes_of(model, *RECTIFIERS):
            before = producer(node.inputs[0])
            while before is not None and before.op_type == "Transpose" and len(consumers(before)) == 1:
                before = producer(before.inputs[0])
            behind = quantizer_behind(node)
            if before is None or isinstance(behind, str):
                continue
            if reads_integers(before) and len(before.outputs[0].uses()) == 1:
                what = f"{label(before)} and this {node.op_type} are computed in float"
            elif dequantizer(node.inputs[0]) is not None:
                what = "computed in float, between DequantizeLinear and QuantizeLinear"
            else:
                continue
            limits, found = _limits(node), _range(behind, only_start=node.op_type == "Relu")
            if limits is None:
                if all(value in constants for value in node.inputs[1:]):
                    yield Undecided(node, "its limits are computed in the graph, from constants")
                else:
                    yield Violation(node, f"{what}: its limits are computed at run time")
            elif found is not None and (limits[0] - found[0] > _EPSILON or found[1] - limits[1] > _EPSILON):
                cut = "below 0" if limits == (0.0, np.inf) else f"to {limits[0]:g} … {limits[1]:g}"
                yield Violation(
                    node, f"{what}: it cuts {cut}, the quantizer's range is {found[0]:.4g} … {found[1]:.4g}"
                )


def _limits(node: "ir.Node") -> tuple[float, float] | None:
    """Where a rectifier cuts; ``None`` if that is computed."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    limits = []
    for place, (name, default) in enumerate((("min", -np.inf), ("max", np.inf)), start=1):
        value = input_of(node, place)
        stored = np.asarray(attribute(node, name, default)) if value is None else array(value)
        if stored is None:
            return None
        limits.append(float(stored.ravel()[0]))
    return limits[0], limits[1]


def _range(quantize: "ir.Node", *, only_start: bool) -> tuple[float, float] | None:
    """The smallest and the largest number that a quantizer to integers can write; ``None`` if that is computed.

    For the start alone, whether it is 0, the scale is not needed.
    """
    kind = quantized_type_of(quantize)
    zero_point = input_of(quantize, 2)
    scale, zero = array(quantize.inputs[1]), np.zeros(()) if zero_point is None else array(zero_point)
    if scale is None and only_start:
        scale = np.ones(())
    if kind is None or not kind.is_integer() or scale is None or zero is None or scale.size != 1:
        return None
    ends = np.iinfo(kind.numpy())
    first, last = ((end - float(zero.ravel()[0])) * float(scale.ravel()[0]) for end in (int(ends.min), int(ends.max)))
    return first, last
