"""The last changes to exported files: what ONNX Runtime, and it alone, asks for."""

from typing import TYPE_CHECKING

from embedl_deploy_onnxruntime.files.biases import quantize_biases
from embedl_deploy_onnxruntime.files.gelu import reorder_gelu

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["finish", "quantize_biases", "reorder_gelu"]


def finish(model: "ir.Model") -> None:
    """Make all of them, in place."""
    quantize_biases(model)
    reorder_gelu(model)
