"""The torch operator of ranges of each call: DynamicQuantizeLinear of ONNX, and back.

    s = (max(x, 0) − min(x, 0)) / 255,   z = round(clamp(−min(x, 0) / s)),   q = clamp(round(x / s) + z)

over the whole tensor, in float32, with ties to even, from operator set 11 on
(https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html). Values in 16 bits are converted to float32 and back,
because that operator takes nothing else.

Gradients are straight through: no value is outside of its own range.
"""

from typing import Any

import torch

import embedl_deploy.quantize.grid.onnx_operators  # noqa: F401 - what it is in ONNX: registered with it

_HIGHEST = 255.0


def dynamic_grid(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of a tensor by its own extremes, two scalars in float32.

    Args:
        x: Any shape, float32, not empty. Where it is nothing but zeros the scale is 1.
    """
    low, high = torch.aminmax(x.detach())
    low, high = low.clamp(max=0.0), high.clamp(min=0.0)
    scale = (high - low) / torch.full_like(high, _HIGHEST)  # a tensor: a GPU multiplies by the inverse of a number
    scale = torch.where(scale == 0, 1.0, scale)  # also of a range that is below what float32 can divide
    return scale, (-low / scale).clamp(0.0, _HIGHEST).round()


@torch.library.custom_op("embedl_deploy::fake_quantize_dynamic", mutates_args=())
def fake_quantize_dynamic(x: torch.Tensor) -> torch.Tensor:
    """Round ``x``, any shape, floating point, to the 256 numbers that its own range is divided into, and come back."""
    if x.numel() == 0:
        return x.clone()
    wide = x.float()
    scale, zero_point = dynamic_grid(wide)
    q = (wide / scale).round_().add_(zero_point).clamp_(0.0, _HIGHEST)
    return q.sub_(zero_point).mul_(scale).to(x.dtype)


@fake_quantize_dynamic.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def _backward(_ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
    return gradient


fake_quantize_dynamic.register_autograd(_backward)
