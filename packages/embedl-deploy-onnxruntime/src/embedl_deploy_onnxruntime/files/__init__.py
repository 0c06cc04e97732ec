"""The last changes to exported files: what ONNX Runtime, and it alone, asks for."""

from typing import TYPE_CHECKING

from embedl_deploy.artifact import widen_constants
from embedl_deploy_onnxruntime.files.biases import quantize_biases
from embedl_deploy_onnxruntime.files.constants import pool_globally, quantize_summands
from embedl_deploy_onnxruntime.files.depthwise import convolve_by_channel
from embedl_deploy_onnxruntime.files.dynamic import multiply_integers
from embedl_deploy_onnxruntime.files.embeddings import gather_integers
from embedl_deploy_onnxruntime.files.factors import fold_factors
from embedl_deploy_onnxruntime.files.gelu import reorder_gelu
from embedl_deploy_onnxruntime.files.kept import keep_in_float, part_from_rectifiers, spare_products
from embedl_deploy_onnxruntime.files.moves import move_on_integers
from embedl_deploy_onnxruntime.files.shared_weights import part_weights
from embedl_deploy_onnxruntime.files.weights_only import turn_weights

if TYPE_CHECKING:
    import onnx_ir as ir

#: Formats that the runtime has no kernels for, and others that have all their numbers.
_WIDER = {"FLOAT4E2M1": "FLOAT8E4M3FN", "FLOAT8E8M0": "FLOAT"}


def finish(model: "ir.Model") -> None:
    """Make all of them, in place."""
    fold_factors(model)
    quantize_summands(model)
    pool_globally(model)
    move_on_integers(model)
    fold_factors(model)  # those behind what was moved
    convolve_by_channel(model)
    part_weights(model)
    keep_in_float(model)
    quantize_biases(model)
    spare_products(model)
    multiply_integers(model)
    turn_weights(model)
    gather_integers(model)
    part_from_rectifiers(model)
    reorder_gelu(model)
    widen_constants(model, _WIDER)
