"""Rules about where Q/DQ cost a fusion: after weighted operators, between their parts, on one side of others."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from embedl_deploy.artifact import DEQUANTIZE, QUANTIZE, Constants, consumers, is_standard, nodes_of, producer
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.graph import ACTIVATIONS
from embedl_deploy.tensorrt.checks.qdq_graph import dequantizer, is_weight, quantized_value, same_scale, weighted_source

if TYPE_CHECKING:
    import onnx_ir as ir

#: ReLU and ReLU6, of which TRT-Q14 speaks.
_RELUS = frozenset({"Relu", "Clip"})
#: Operators that TensorRT computes in the kernel of the convolution or product before them, but for ReLU.
_ACTIVATIONS = frozenset(name for each in ACTIVATIONS if each.elementwise for name in each.onnx) - _RELUS
_POOLS = ("AveragePool", "GlobalAveragePool")


def _pairs_behind(model: "ir.Model") -> Iterator[tuple["ir.Node", "ir.Node", str]]:
    """Q/DQ after weighted operators: (DequantizeLinear, a reader of it, name of the weighted operator)."""
    constants = Constants()
    for node in nodes_of(model, DEQUANTIZE):
        source = weighted_source(quantized_value(node), constants)
        if source is not None:
            for reader in consumers(node):
                yield node, reader, f"{source.op_type} {source.name!r}"


class BeforeActivation(Rule):
    """TRT-Q13. TensorRT for RTX 1.7 takes it: the kernel after the convolution rounds and dequantizes, and nothing is
    stored in INT8.
    """

    id = "TRT-Q13"
    severity = Severity.WARNING
    title = "No Q/DQ between a convolution or product and its activation function."
    remedy = "Quantize after the activation function."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Check who reads a tensor that is quantized directly after a weighted operator."""
        for node, reader, source in _pairs_behind(model):
            if reader.op_type in _ACTIVATIONS:
                yield Violation(node, f"stands between {source} and {reader.op_type} {reader.name!r}")


class BetweenConvAndRelu(Rule):
    """TRT-Q14. TensorRT for RTX 1.7 takes it, with the same cost as TRT-Q13."""

    id = "TRT-Q14"
    severity = Severity.WARNING
    title = "No Q/DQ between a convolution, its batch norm and its ReLU."
    remedy = "Fold the batch norm, and quantize after the ReLU."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Check who reads a tensor that is quantized directly after a weighted operator or its batch norm."""
        for node, reader, source in _pairs_behind(model):
            if reader.op_type in {"BatchNormalization", *_RELUS}:
                yield Violation(node, f"stands between {source} and {reader.op_type} {reader.name!r}")


class BothAddendsQuantized(Rule):
    """TRT-Q15. TensorRT for RTX 1.7 takes it: the kernel of the sum rounds the product again, for nothing."""

    id = "TRT-Q15"
    severity = Severity.WARNING
    title = "In a sum after a convolution or product, only the other addend, the residual, is quantized."
    remedy = "Remove the Q/DQ between the convolution or product and the sum."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at sums of two quantized tensors, one of them of a weighted operator and read by the sum alone."""
        constants = Constants()
        for node in nodes_of(model, "Add"):
            found = [producer(value, DEQUANTIZE) for value in node.inputs]
            if None in found or any(place is not None and is_weight(place, constants) for place in found):
                continue
            for place in found:
                assert place is not None
                source = weighted_source(quantized_value(place), constants)
                quantize = producer(place.inputs[0])
                alone = quantize is not None and len(consumers(quantize)) == len(consumers(place)) == 1
                if source is not None and alone:
                    yield Violation(node, f"both addends are quantized, also that of {source.op_type} {source.name!r}")
                    break


class OneSideOfPoolOrAdd(Rule):
    """TRT-Q16. TensorRT for RTX 1.7 takes all of it, and computes average pooling and sums in float in any case; max
    pooling is computed in INT8 without Q/DQ of its own.
    """

    id = "TRT-Q16"
    severity = Severity.WARNING
    title = "Average pooling and sums are quantized at input and output, or at neither; max pooling needs no Q/DQ."
    remedy = "Quantize the output as well, or do not quantize the input; use one scale around max pooling."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at pools, and at sums of two quantized tensors."""
        constants = Constants()
        for node in nodes_of(model, *_POOLS):
            if dequantizer(node.inputs[0]) is not None and not self._is_quantized(node):
                yield Violation(node, "its input is quantized, its output is not: computed in float")
        for node in nodes_of(model, "Add"):
            found = [dequantizer(value) for value in node.inputs]
            activations = all(place is not None and not is_weight(place, constants) for place in found)
            if activations and not self._is_quantized(node):
                message = "both addends are quantized, the sum is not: computed in float"
                yield Violation(node, message, Severity.INFO)
        for node in nodes_of(model, "MaxPool"):
            before = dequantizer(node.inputs[0])
            for after in consumers(node):
                is_quantizer = after.op_type == QUANTIZE and is_standard(after)
                if before is not None and is_quantizer and same_scale(before, after) is False:
                    yield Violation(node, f"{before.name!r} before and {after.name!r} behind it have different scales")

    def _is_quantized(self, node: "ir.Node") -> bool:
        """Whether a result is quantized, itself or after its activation."""
        readers = consumers(node)
        behind = [reader for first in readers for reader in (first, *consumers(first))]
        return any(reader.op_type == QUANTIZE for reader in behind)
