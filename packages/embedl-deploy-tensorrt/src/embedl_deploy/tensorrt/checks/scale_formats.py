"""A rule about the formats of scales, and of what is dequantized by them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import DEQUANTIZE, QUANTIZE, attribute, input_of, nodes_of, quantized_type_name
from embedl_deploy.backend import Rule, Severity, Undecided, Violation

if TYPE_CHECKING:
    import onnx_ir as ir

_FOUR_BITS = frozenset({"INT4", "UINT4", "FLOAT4E2M1"})


class ScaleFormats(Rule):
    """TRT-Q26. TensorRT for RTX 1.7: a constant in E8M0 is refused by the parser, whoever reads it. What is dequantized
    from INT4 or FP4 to another type than that of its scales is refused by the builder; from INT8 and FP8 it is taken.
    """

    id = "TRT-Q26"
    severity = Severity.ERROR
    title = "Scales are floats, not E8M0, and what is dequantized from four bits has their type."
    remedy = (
        "Write scales that are powers of two in float32, as export_onnx does for this backend, and a Cast after the "
        "DequantizeLinear instead of its output_dtype."
    )

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the scale and the output_dtype of every QuantizeLinear and DequantizeLinear."""
        import onnx_ir as ir

        for node in nodes_of(model, QUANTIZE, DEQUANTIZE):
            scale = input_of(node, 1)
            if scale is None or scale.dtype is None:
                yield Undecided(node, "the type of the scale is not known")
                continue
            if scale.dtype is ir.DataType.FLOAT8E8M0:
                yield Violation(node, f"the scale {scale.name!r} is in E8M0, which TensorRT cannot read")
                continue
            given, kind = attribute(node, "output_dtype", 0), quantized_type_name(node)
            if node.op_type == DEQUANTIZE and kind in _FOUR_BITS and given not in (0, int(scale.dtype)):
                wanted, found = scale.dtype.name, ir.DataType(given).name
                yield Violation(node, f"{kind} is dequantized to {found} by scales in {wanted}; expected {wanted}")
