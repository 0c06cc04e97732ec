"""The rule about types of quantized numbers and scales that the runtime has no kernels for."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import DEQUANTIZE, QUANTIZE, input_of, nodes_of, quantized_type_name
from embedl_deploy.backend import Rule, Severity, Undecided, Violation

if TYPE_CHECKING:
    import onnx_ir as ir


class NarrowFloats(Rule):
    """ORT-20. ONNX Runtime 1.31: no session can be made, because QuantizeLinear and DequantizeLinear have no kernels
    for E2M1, nor for scales in E8M0.
    """

    id = "ORT-20"
    severity = Severity.ERROR
    title = "No tensor is quantized to E2M1 (NVFP4, MXFP4), and no scale is in E8M0 (MX formats)."
    remedy = (
        "Store the same numbers in E4M3 and the scales in float32, as export_onnx does for this backend; or use INT4."
    )

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the numbers and the scale of every QuantizeLinear and DequantizeLinear."""
        for node in nodes_of(model, QUANTIZE, DEQUANTIZE):
            scale = input_of(node, 1)
            if quantized_type_name(node) == "FLOAT4E2M1":
                yield Violation(node, "numbers in FLOAT4E2M1: no session can be made, there is no kernel for them")
            elif scale is not None and scale.dtype is not None and scale.dtype.name == "FLOAT8E8M0":
                yield Violation(node, "scales in FLOAT8E8M0: no session can be made, there is no kernel for them")
