"""What TensorRT's parser takes in the place of operators that it lacks."""

from typing import TYPE_CHECKING

from embedl_deploy.artifact import widen_constants
from embedl_deploy.tensorrt.files.block_activations import use_own_operators

if TYPE_CHECKING:
    import onnx_ir as ir


def finish(model: "ir.Model") -> None:
    """Operators of TensorRT's own for activations in blocks, and scales that are powers of two in float32, in place."""
    use_own_operators(model)
    widen_constants(model, {"FLOAT8E8M0": "FLOAT"})
