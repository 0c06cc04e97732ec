"""Reading ONNX files, and finding the PyTorch module that a node came from."""

from embedl_deploy.artifact.constants import Constants
from embedl_deploy.artifact.functions import inline_functions
from embedl_deploy.artifact.moves import is_dequantized
from embedl_deploy.artifact.notes import note_in_float, why_in_float
from embedl_deploy.artifact.operations import operations_of
from embedl_deploy.artifact.order import check_order, check_sorted
from embedl_deploy.artifact.origin import module_of, modules_by_node, users_module_of
from embedl_deploy.artifact.quantizers import (
    DEQUANTIZE,
    QUANTIZE,
    axis_of,
    block_of,
    consumers,
    is_per_axis,
    is_standard,
    nodes_of,
    opset_of,
    producer,
    quantized_type_name,
    quantized_type_of,
    scale_shape,
)
from embedl_deploy.artifact.questions import array, attribute, fixed_sizes_of, input_of, sizes_of
from embedl_deploy.artifact.reading import model_of, read_onnx
from embedl_deploy.artifact.shapes import shapes_at
from embedl_deploy.artifact.weights import check_weight_files
from embedl_deploy.artifact.widening import widen_constants

__all__ = [
    "DEQUANTIZE",
    "QUANTIZE",
    "Constants",
    "array",
    "attribute",
    "axis_of",
    "block_of",
    "check_order",
    "check_sorted",
    "check_weight_files",
    "consumers",
    "fixed_sizes_of",
    "inline_functions",
    "input_of",
    "is_dequantized",
    "is_per_axis",
    "is_standard",
    "model_of",
    "module_of",
    "modules_by_node",
    "nodes_of",
    "note_in_float",
    "operations_of",
    "opset_of",
    "producer",
    "quantized_type_name",
    "quantized_type_of",
    "read_onnx",
    "scale_shape",
    "shapes_at",
    "sizes_of",
    "users_module_of",
    "why_in_float",
    "widen_constants",
]
