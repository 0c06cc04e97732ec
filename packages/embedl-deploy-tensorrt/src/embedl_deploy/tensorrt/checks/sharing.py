"""Rules about tensors with several readers or writers, whose scales must be equal."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import DEQUANTIZE, QUANTIZE, Constants, block_of, nodes_of, producer
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.tensorrt.checks.qdq_graph import dequantizer, is_weight, same_scale

if TYPE_CHECKING:
    import onnx_ir as ir


class SiblingScales(Rule):
    """TRT-Q17. TensorRT for RTX 1.7 takes them and writes one quantized copy of the tensor for each scale."""

    id = "TRT-Q17"
    severity = Severity.WARNING
    title = "All QuantizeLinear of one tensor have the same scale and type."
    remedy = "Quantize the tensor once and let all readers share it."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Compare every QuantizeLinear with the first one of its tensor."""
        first_of: dict[int, ir.Node] = {}
        for node in nodes_of(model, QUANTIZE):
            first = first_of.setdefault(id(node.inputs[0]), node)
            if first is node:
                continue
            same = same_scale(first, node)
            name = node.inputs[0].name if node.inputs[0] is not None else ""
            if same is None:
                yield Undecided(node, f"its scale, or that of {first.name!r} on the same tensor, is not in the file")
            elif not same:
                yield Violation(node, f"quantizes {name!r} in another way than {first.name!r} does")


class ConcatScales(Rule):
    """TRT-Q18. TensorRT for RTX 1.7 takes them and rounds inputs with another scale twice."""

    id = "TRT-Q18"
    severity = Severity.WARNING
    title = "The inputs of a Concat are all quantized with the same scale, or none is."
    remedy = "Give all inputs the same scale, the largest of them, or quantize only after the Concat."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every Concat with a quantized activation among its inputs."""
        constants = Constants()
        for node in nodes_of(model, "Concat"):
            found = [dequantizer(value) for value in node.inputs]
            quantized = [place for place in found if place is not None and not is_weight(place, constants)]
            if not quantized:
                continue
            if len(quantized) < len(found):
                yield Violation(node, f"{len(quantized)} of {len(found)} inputs are quantized")
                continue
            same = [same_scale(quantized[0], place) for place in quantized[1:]]
            if False in same:
                yield Violation(node, f"its {len(found)} inputs are quantized with different scales")
            elif None in same:
                yield Undecided(node, "the scales of its inputs are not all stored in the file")


class CastAfterDequantize(Rule):
    """TRT-Q19. TensorRT for RTX 1.7 looks through the Cast and computes in INT8; older releases did not. A weight in
    blocks is dequantized by a kernel of its own, which converts it as well.
    """

    id = "TRT-Q19"
    severity = Severity.WARNING
    title = "No Cast between a DequantizeLinear and what reads it."
    remedy = "Write scales in the type that the reader needs, so that DequantizeLinear returns that type."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Check every Cast directly after a DequantizeLinear."""
        for node in nodes_of(model, "Cast"):
            dequantize = producer(node.inputs[0], DEQUANTIZE)
            if dequantize is not None and node.outputs[0].uses() and not block_of(dequantize):
                to = node.outputs[0].dtype
                kind = "another type" if to is None else to.name
                yield Violation(node, f"what {dequantize.name!r} gives is converted to {kind}")
