"""The last changes to exported files: what ONNX Runtime, and it alone, asks for."""

from typing import TYPE_CHECKING

from embedl_deploy_onnxruntime.files.biases import quantize_biases
from embedl_deploy_onnxruntime.files.constants import pool_globally, quantize_summands
from embedl_deploy_onnxruntime.files.factors import fold_factors
from embedl_deploy_onnxruntime.files.gelu import reorder_gelu

if TYPE_CHECKING:
    import onnx_ir as ir


def finish(model: "ir.Model") -> None:
    """Make all of them, in place."""
    fold_factors(model)
    quantize_summands(model)
    pool_globally(model)
    quantize_biases(model)
    reorder_gelu(model)
