"""Rules about the inputs of convolutions and products: all quantized or none, and along which axis."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from embedl_deploy.artifact import (
    DEQUANTIZE,
    Constants,
    attribute,
    axis_of,
    block_of,
    is_per_axis,
    nodes_of,
    producer,
    quantized_type_name,
    scale_shape,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.tensorrt.checks.qdq_graph import WEIGHTED, dequantizer, is_weight, rank_of

if TYPE_CHECKING:
    import onnx_ir as ir

_WEIGHT_ONLY = frozenset({"INT4", "UINT4", "FLOAT4E2M1"})
_EIGHT_BITS = frozenset({"INT8", "FLOAT8E4M3FN"})
#: Between a DequantizeLinear and what computes in its type, beside operators that move numbers.
_PASSED = ("MaxPool", "Cast")


class AllInputsOrNone(Rule):
    """TRT-Q11. TensorRT for RTX 1.7: with one quantized input, convolutions and products are computed in float, and
    the quantized input is rounded and dequantized for it. INT8 with FP8 is refused by the builder. Weights alone, of
    products, are dequantized inside the kernel: that saves memory. INT4 weights beside INT8 activations are taken.
    """

    id = "TRT-Q11"
    severity = Severity.WARNING
    title = "Both inputs of a convolution or product are quantized to the same type, or none is."
    remedy = "Quantize the other input as well, or remove the Q/DQ; only four-bit weights may be quantized alone."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the first two inputs of convolutions and products."""
        constants = Constants()
        for node in nodes_of(model, *WEIGHTED):
            found = [dequantizer(value, *_PASSED) for value in node.inputs[:2]]
            quantized = [place for place in found if place is not None]
            types = [quantized_type_name(place) for place in quantized]
            if len(quantized) == 1:
                yield from self._one(node, found.index(quantized[0]), quantized[0], is_weight(quantized[0], constants))
            elif set(types) == _EIGHT_BITS:
                message = f"its inputs are quantized to {types[0]} and {types[1]}; TensorRT has no kernel for both"
                yield Violation(node, message, Severity.ERROR)

    def _one(self, node: "ir.Node", index: int, quantized: "ir.Node", is_weight: bool) -> Iterator[Violation]:
        kind = quantized_type_name(quantized)
        if is_weight and (kind in _WEIGHT_ONLY or block_of(quantized)):
            return
        if not is_weight:
            message = f"input {index} is quantized to {kind}, input {1 - index} is float: computed in float"
            yield Violation(node, message)
        elif node.op_type in ("Conv", "ConvTranspose"):
            yield Violation(node, f"its weight is quantized to {kind}, its input is float: computed in float")
        else:
            message = f"its weight alone is quantized to {kind}: computed in float, only memory is saved"
            yield Violation(node, message, Severity.INFO)


class ActivationsPerTensor(Rule):
    """TRT-Q12. TensorRT for RTX 1.7: convolutions and products whose activation has a scale per axis or block, or whose
    weight has scales along another axis than its output channels, are taken and computed in float.
    """

    id = "TRT-Q12"
    severity = Severity.WARNING
    title = "Activations have one scale; weights have one, or one per output channel."
    remedy = "Quantize activations per tensor, and weights along output channels: axis 0 of Conv, the last of MatMul."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at all activations, then at the weights of convolutions and products."""
        constants = Constants()
        for node in nodes_of(model, DEQUANTIZE):
            if (
                is_weight(node, constants)
                or (scale_shape(node) or (1,)) == (1,)
                or quantized_type_name(node) in _WEIGHT_ONLY
            ):
                continue
            if not all(_is_filter(use.node, use.idx) for use in node.outputs[0].uses()):
                shape = "×".join(map(str, scale_shape(node) or ()))
                yield Violation(node, f"a computed tensor has {shape} scales; what reads it is computed in float")
        for node in nodes_of(model, "Conv", "Gemm", "MatMul"):
            for index, value in enumerate(node.inputs[:2]):
                weight = dequantizer(value)
                if weight is None or not is_per_axis(weight):
                    continue
                if is_weight(weight, constants) or _is_filter(node, index):
                    yield from self._weight(node, index, value, weight)

    def _weight(
        self, node: "ir.Node", index: int, value: "ir.Value | None", weight: "ir.Node"
    ) -> Iterator[Violation | Undecided]:
        rank = rank_of(weight.inputs[0])
        if rank is None or (node.op_type != "Conv" and rank < 2):
            yield Undecided(node, "the shape of the weight is not known")
            return
        if not 0 <= axis_of(weight) < rank:
            return  # TRT-Q03
        axis = _followed(axis_of(weight), value, weight)
        if axis is None:
            yield Undecided(node, "the weight is reshaped on its way; where its axis of scales goes is not known")
            return
        wanted = _output_axis(node, index, rank)
        if axis != wanted:
            message = f"the weight has a scale per slice along axis {axis}; the output channels are axis {wanted}"
            yield Violation(node, f"{message}: computed in float")


def _is_filter(node: "ir.Node", index: int) -> bool:
    """Whether an input is the weight of a convolution, which may be computed at run time."""
    return node.op_type == "Conv" and index == 1


def _output_axis(node: "ir.Node", index: int, rank: int) -> int:
    """The axis of a weight, as a node reads it, that becomes the output's channels."""
    if node.op_type == "Conv":
        return 0
    transposed = node.op_type == "Gemm" and bool(attribute(node, ("transA", "transB")[index], 0))
    last = rank - 1
    return last if (index == 1) is not transposed else last - 1


def _followed(axis: int, value: "ir.Value | None", weight: "ir.Node") -> int | None:
    """Where an axis of a DequantizeLinear's result is in a value that comes from it; ``None`` if it cannot be told."""
    moves = []
    while (node := producer(value)) is not None and node is not weight:
        moves.append(node)
        value = node.inputs[0]
    for node in reversed(moves):
        if node.op_type == "Transpose":
            rank = rank_of(node.inputs[0])
            order = attribute(node, "perm", None if rank is None else tuple(reversed(range(rank))))
            if order is None:
                return None
            axis = list(order).index(axis)
        elif node.op_type != "Identity":
            return None
    return axis
