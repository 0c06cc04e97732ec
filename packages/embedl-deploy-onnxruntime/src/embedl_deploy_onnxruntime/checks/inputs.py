"""Rules about what an operator reads: numbers in float among integers, and numbers that were only moved."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    input_of,
    nodes_of,
    producer,
    quantized_type_name,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_onnxruntime.checks.walks import (
    CARRIED,
    INTEGER,
    MOVING,
    dequantizer,
    is_mover,
    label,
    quantizer_behind,
    reads_integers,
    same_grid,
)

if TYPE_CHECKING:
    import onnx_ir as ir


class InputsQuantized(Rule):
    """ORT-03. ONNX Runtime 1.31: an operator with one input in float is computed in float. A convolution or Gemm with a
    weight in float is not: the runtime quantizes the weight itself.
    """

    id = "ORT-03"
    severity = Severity.WARNING
    title = "All inputs of an operator with a quantized output are quantized, or none is."
    remedy = "Quantize the other inputs, constants included, or leave the output in float."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at operators of several inputs, with QuantizeLinear behind them."""
        constants = Constants()
        for node in nodes_of(model, *INTEGER):
            places = INTEGER[node.op_type] or tuple(range(len(node.inputs)))
            found = [dequantizer(input_of(node, place), CARRIED | MOVING) for place in places]
            floats = [place for place, one in zip(places, found, strict=True) if one is None]
            if not floats or len(floats) == len(places) or isinstance(quantizer_behind(node), str):
                continue
            if node.op_type == "Add" and _adds_a_bias(node):
                continue
            weight = node.inputs[1] if len(node.inputs) > 1 else None
            if node.op_type in ("Conv", "Gemm") and floats == [1] and weight in constants:
                yield Violation(node, "its weight is in float, and the runtime quantizes it by itself, with one scale")
            elif node.op_type not in ("Conv", "Gemm") or floats != [0]:  # a weight alone is ORT-16
                names = " and ".join(map(str, floats))
                yield Violation(node, f"computed in float: input {names} is not quantized, its output is")


def _adds_a_bias(node: "ir.Node") -> bool:
    """Whether a sum is that of a product of integers and its bias in INT32: part of the product (ORT-05)."""
    for product, bias in (node.inputs, reversed(list(node.inputs))):
        maker, dequantize = producer(product, "MatMul"), producer(bias, DEQUANTIZE)
        if maker is None or dequantize is None or quantized_type_name(dequantize) != "INT32":
            continue
        if reads_integers(maker) and len(list(maker.outputs[0].uses())) == 1:
            return True
    return False


class MoversKeepIntegers(Rule):
    """ORT-04. ONNX Runtime 1.31: operators that move numbers move integers if both sides have one scale. It moves
    DequantizeLinear and QuantizeLinear through Reshape, Transpose, Squeeze, Unsqueeze, Slice and MaxPool; the others
    need both directly at them.
    """

    id = "ORT-04"
    severity = Severity.WARNING
    title = "Operators that only move numbers are quantized with one scale at both sides."
    remedy = (
        "Write Q/DQ of the same scale and zero point behind it; export Flatten as Reshape, which needs none. "
        "Or leave both sides in float."
    )

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every operator that reads dequantized numbers and moves them."""
        for node in nodes_of(model, *CARRIED, *MOVING):
            behind = [_readers(output) for output in node.outputs]
            quantizers = [reader for readers in behind for reader in readers if reader.op_type == QUANTIZE]
            if node.op_type in ("Identity", "Dropout") or not (quantizers or node.op_type in MOVING):
                continue
            before = dequantizer(node.inputs[0]) if is_mover(node) else None
            if before is None:
                continue
            crowded = [
                readers for readers in behind if len(readers) > 1 and any(r.op_type == QUANTIZE for r in readers)
            ]
            if any(same_grid(before, quantize) is False for quantize in quantizers):
                yield Violation(node, f"moves float: what is behind has another scale or type than {before.name!r}")
            elif crowded:
                message = f"moves float: QuantizeLinear is one of {len(crowded[0])} readers; expected it alone, or none"
                yield Violation(node, message)
            elif node.op_type in MOVING and (reader := _integer_reader(node)) is not None:
                yield Violation(
                    node, f"{label(reader)} is computed in float: no Q/DQ stands behind this {node.op_type}"
                )


def _readers(value: "ir.Value") -> "list[ir.Node]":
    return list(dict.fromkeys(use.node for use in value.uses()))


def _integer_reader(node: "ir.Node") -> "ir.Node | None":
    """A reader of what is moved that could have been computed in integers, through other movers."""
    waiting = [use.node for output in node.outputs for use in output.uses()]
    while waiting:
        reader = waiting.pop(0)
        if reader.op_type in INTEGER:
            others = [
                value for value in reader.inputs[:2] if value is not None and producer(value, DEQUANTIZE) is not None
            ]
            if others or (INTEGER[reader.op_type] == (0,) and not isinstance(quantizer_behind(reader), str)):
                return reader
        elif reader.op_type in CARRIED and is_mover(reader):
            waiting.extend(use.node for use in reader.outputs[0].uses())
    return None
