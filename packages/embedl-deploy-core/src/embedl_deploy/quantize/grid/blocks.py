"""The torch operator that gives back numbers whose scales are numbers of a format: DequantizeLinear of ONNX, or two."""

import torch

import embedl_deploy.quantize.grid.onnx_blocks  # noqa: F401 - what it is in ONNX: registered with it
from embedl_deploy.quantize.grid.block_scales import scales_as_stored
from embedl_deploy.quantize.grid.operators import dequantize_values


@torch.library.custom_op("embedl_deploy::dequantize_blocks", mutates_args=())
def dequantize_blocks(
    values: torch.Tensor,
    scale: torch.Tensor,
    tensor_scale: torch.Tensor | None,
    block: int,
    precision: str,  # noqa: ARG001 - the exporter reads it
    dtype: torch.dtype,
) -> torch.Tensor:
    """What stored numbers stand for, computed in float32.

    Args:
        values: Numbers of the format, any shape, in the dtype in which they are stored.
        scale: The shape of ``values`` with the last axis divided by ``block``; E4M3, or the bytes of E8M0 (uint8).
        tensor_scale: A factor of all scales, a float32 scalar.
        block: Values that share a scale along the last axis.
        precision: Value of a :class:`Precision`.
        dtype: Of the result.
    """
    return dequantize_values(values.float(), scales_as_stored(scale, tensor_scale), None, -1, block).to(dtype)


@dequantize_blocks.register_fake
def _(
    values: torch.Tensor,
    _scale: torch.Tensor,
    _tensor_scale: torch.Tensor | None,
    _block: int,
    _precision: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    return torch.empty_like(values, dtype=dtype)
