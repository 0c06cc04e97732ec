"""Rules about convolutions for which there is no fast kernel."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from embedl_deploy.artifact import attribute, axis_of, is_per_axis, nodes_of, quantized_type_name, sizes_of
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.tensorrt.checks.qdq_graph import dequantizer
from embedl_deploy.tensorrt.constraints import FEWEST_FP8_CHANNELS, INT8_GROUP_MULTIPLE

if TYPE_CHECKING:
    import onnx_ir as ir


def _quantized(model: "ir.Model", kind: str) -> Iterator[tuple["ir.Node", int, int, int]]:
    """Convolutions with both inputs of a type: (node, groups, input and output channels of a group), 0 if unknown."""
    for node in nodes_of(model, "Conv"):
        found = [dequantizer(value, "MaxPool", "Cast") for value in node.inputs[:2]]
        if len(found) == 2 and all(place is not None and quantized_type_name(place) == kind for place in found):
            groups: int = attribute(node, "group", 1)
            sizes = sizes_of(node.inputs[1]) or (0, 0)
            yield node, groups, sizes[1] or 0, (sizes[0] or 0) // groups


class TransposedConvolutions(Rule):
    """TRT-Q10. TensorRT 8 took scales along axis 0 and one group only. TensorRT for RTX 1.7 takes either axis and any
    number of groups, in INT8 and FP8, and computes all of them in float, after a kernel that rounds.
    """

    id = "TRT-Q10"
    severity = Severity.WARNING
    title = "A quantized ConvTranspose has one group, and one scale or scales along axis 0."
    remedy = "Leave transposed convolutions in float."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every ConvTranspose with a quantized weight."""
        for node in nodes_of(model, "ConvTranspose"):
            weight = dequantizer(node.inputs[1])
            if weight is None:
                continue
            groups = attribute(node, "group", 1)
            if groups != 1:
                yield Violation(node, f"a quantized transposed convolution in {groups} groups")
            elif is_per_axis(weight) and axis_of(weight) != 0:
                yield Violation(node, f"scales along axis {axis_of(weight)} of its weight; TensorRT 8 takes axis 0")
            else:
                yield Violation(node, "TensorRT for RTX computes it in float, quantized or not", Severity.INFO)


class GroupedInt8(Rule):
    """TRT-Q22. TensorRT for RTX 1.7 takes them and pads the channels in a kernel of its own."""

    id = "TRT-Q22"
    severity = Severity.WARNING
    title = "A grouped INT8 convolution has a multiple of four channels in each group."
    remedy = "Leave the convolution in float, or change the number of groups or channels."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at INT8 convolutions in groups that are not depthwise."""
        for node, groups, entering, leaving in _quantized(model, "INT8"):
            if groups == 1 or entering == 1:
                continue
            if not entering:
                yield Undecided(node, "the shape of the weight is not known")
            elif entering % INT8_GROUP_MULTIPLE or leaving % INT8_GROUP_MULTIPLE:
                message = f"{groups} groups from {entering} to {leaving} channels each"
                yield Violation(node, f"{message}; INT8 kernels work on multiples of {INT8_GROUP_MULTIPLE}")


class DepthwiseInt8(Rule):
    """TRT-Q23. TensorRT for RTX 1.7 takes them and pads small ones in a kernel of its own."""

    id = "TRT-Q23"
    severity = Severity.INFO
    title = "Depthwise convolutions are memory-bound: INT8 rarely makes them faster."
    remedy = "Measure both, or leave them in float, as QuantConfig(policy='mixed') does."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at INT8 convolutions with one input channel in each group."""
        for node, groups, entering, _ in _quantized(model, "INT8"):
            if groups > 1 and entering == 1:
                yield Violation(node, f"a depthwise convolution over {groups} channels in INT8")


class Fp8Convolutions(Rule):
    """TRT-Q24. TensorRT for RTX 1.7 takes them and pads the channels; users of full TensorRT report that the build
    fails, for want of an implementation.
    """

    id = "TRT-Q24"
    severity = Severity.WARNING
    title = "An FP8 convolution has one group and at least four input channels."
    remedy = "Leave the convolution in float, as the tensorrt backend's policies do."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at convolutions with both inputs in FP8."""
        for node, groups, entering, _ in _quantized(model, "FLOAT8E4M3FN"):
            if groups > 1:
                yield Violation(node, f"an FP8 convolution in {groups} groups")
            elif not entering:
                yield Undecided(node, "the shape of the weight is not known")
            elif entering < FEWEST_FP8_CHANNELS:
                yield Violation(node, f"an FP8 convolution over {entering} input channels")
