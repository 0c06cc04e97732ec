"""The torch operator of activations in blocks, whose scales are found in each call.

    NVFP4   s = E4M3(max|x| / 6 / t) · t    in blocks of 16; t is the scale of the tensor, max|X| / (448 · 6) of all
                                            calibration data
    MXFP8   s = 2^(floor(log2 max|x|) − 8)  in blocks of 32

    x' = round(clamp(x / s)) · s

along the last axis, all in float32. Where a call reaches further than the calibration data did, scales of NVFP4 end at
448 · t, and values at 6 · 448 · t. A block that reaches less far than the smallest number of E4M3 has that as its
scale; one of zeros stays zero. Values in 16 bits are widened, and come back in their own type.

Gradients are straight through, but zero where a value lies beyond what the scale of the tensor holds.
"""

from typing import Any

import torch

import embedl_deploy.quantize.grid.onnx_call_blocks  # noqa: F401 - what it is in ONNX: registered with it
from embedl_deploy.numerics.formats import Precision
from embedl_deploy.quantize.grid.block_scales import block_scales
from embedl_deploy.quantize.grid.operators import dequantize_values, quantize_values


def scales_of_call(
    x: torch.Tensor, tensor_scale: torch.Tensor | None, block: int, precision: Precision
) -> torch.Tensor:
    """The scales of a tensor's blocks, what values are divided by.

    Args:
        x: (..., K), float32, with K a multiple of ``block``.
        tensor_scale: Of NVFP4, a float32 scalar.
        block: Values along the last axis that share a scale.
        precision: A format whose scales have a format.

    Returns:
        (..., K / block), float32.
    """
    amax = x.reshape(*x.shape[:-1], -1, block).abs().amax(-1)
    if tensor_scale is None:
        return block_scales(amax, precision, None)
    least, most = Precision.FP8.smallest, Precision.FP8.high
    # Divided by a tensor: a GPU multiplies by the inverse of a number.
    ratio = amax / torch.full_like(tensor_scale, precision.high) / tensor_scale
    numbers = ratio.clamp(least, most).to(torch.float8_e4m3fn).float()
    return torch.where(amax == 0, 1.0, numbers) * tensor_scale


@torch.library.custom_op("embedl_deploy::fake_quantize_call", mutates_args=())
def fake_quantize_call(x: torch.Tensor, tensor_scale: torch.Tensor | None, block: int, precision: str) -> torch.Tensor:
    """Round an activation to a format in blocks by the scales of this call, and come back.

    Args:
        x: (..., K), floating point, with K a multiple of ``block``.
        tensor_scale: The static scale of NVFP4, a float32 scalar; ``None`` for MX formats.
        block: Values along the last axis that share a scale.
        precision: Value of a :class:`Precision`.
    """
    wide, row = x.float(), Precision(precision)
    scale = scales_of_call(wide, tensor_scale, block, row)
    values = quantize_values(wide, scale, None, -1, block, row)
    return dequantize_values(values, scale, None, -1, block).to(x.dtype)


@fake_quantize_call.register_fake
def _(x: torch.Tensor, *_settings: Any) -> torch.Tensor:
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ARG001 - torch names them
    x, tensor_scale, _, precision = inputs
    _, ctx.furthest = Precision(precision).span
    ctx.save_for_backward(x, tensor_scale)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, tensor_scale = ctx.saved_tensors
    if tensor_scale is not None:
        gradient = torch.where(x.abs().float() <= ctx.furthest * tensor_scale, gradient, 0.0)
    return gradient, None, None, None


fake_quantize_call.register_autograd(_backward, setup_context=_setup)
