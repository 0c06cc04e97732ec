"""The two torch operators of explicit quantization.

``embedl_deploy::fake_quantize`` rounds to the grid and comes back: QuantizeLinear and DequantizeLinear in ONNX.
``embedl_deploy::dequantize`` multiplies integers by their scales: DequantizeLinear alone. They are operators of their
own so that they stay one node each through ``torch.compile`` and ``torch.export``.

Gradients: straight through inside the range and zero outside it (Bengio et al. 2013); for the scale those of LSQ
(Esser et al. 2020, equation 3).
"""

from typing import Any

import torch

import embedl_deploy.quantize.grid.onnx_operators  # noqa: F401 - what they are in ONNX: registered with them
from embedl_deploy.numerics.formats import Precision
from embedl_deploy.quantize.grid.minifloat import round_to_float


def expand_scale(scale: torch.Tensor, x: torch.Tensor, axis: int, block: int) -> torch.Tensor:
    """``scale`` to broadcast with ``x``: a scalar, one a value, or one per index or block of ``axis``."""
    if scale.dim() == 0 or scale.shape == x.shape:
        return scale
    if block > 0:
        block = min(block, x.shape[axis])  # a block may be larger than the row
        return scale.repeat_interleave(block, dim=axis).narrow(axis, 0, x.shape[axis])
    return scale.reshape([-1 if d == axis % x.dim() else 1 for d in range(x.dim())])


def quantize_values(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, axis: int, block: int, precision: Precision
) -> torch.Tensor:
    """The numbers of the grid, in the dtype of ``x``: what QuantizeLinear stores."""
    q = x / expand_scale(scale, x, axis, block)
    if precision.is_float:
        return round_to_float(q.clamp_(precision.low, precision.high), precision)
    q.round_()
    if zero_point is not None:
        q += zero_point
    return q.clamp_(precision.low, precision.high)


def dequantize_values(
    q: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, axis: int, block: int
) -> torch.Tensor:
    """The values that numbers of the grid stand for."""
    if zero_point is not None:
        q = q - zero_point
    return q * expand_scale(scale, q, axis, block)


@torch.library.custom_op("embedl_deploy::fake_quantize", mutates_args=())
def fake_quantize(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, axis: int, block: int, precision: str
) -> torch.Tensor:
    """Round ``x`` to the grid that ``scale`` and ``zero_point`` span, and come back.

    Args:
        x: Any shape, floating point.
        scale: Of the dtype of ``x``. A scalar; (C,) for the indices of ``axis``; or the shape of ``x`` with ``axis``
            divided by ``block``.
        zero_point: A scalar of the dtype in which numbers are stored, or ``None`` for 0.
        axis: Channel or block axis.
        block: Values that share a scale along ``axis``; 0 for no blocks.
        precision: Value of a :class:`Precision`.
    """
    values = quantize_values(x, scale, zero_point, axis, block, Precision(precision))
    if zero_point is not None:
        values.sub_(zero_point)
    return values.mul_(expand_scale(scale, values, axis, block))  # in place: a weight may be a good part of the memory


@fake_quantize.register_fake
def _(x: torch.Tensor, *_settings: Any) -> torch.Tensor:
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:  # noqa: ARG001 - torch names them
    x, scale, zero_point, ctx.axis, ctx.block, precision = inputs
    ctx.precision = Precision(precision)
    ctx.save_for_backward(x, scale, zero_point)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, scale, zero_point = ctx.saved_tensors
    precision, spread = ctx.precision, expand_scale(scale, x, ctx.axis, ctx.block)
    ratio = x / spread
    low, high = precision.low, precision.high
    offset = 0.0 if zero_point is None else zero_point
    rounded = ratio if precision.is_float else ratio.round()
    inside = (rounded + offset >= low) & (rounded + offset <= high)
    for_x = torch.where(inside, gradient, 0.0) if ctx.needs_input_grad[0] else None
    for_scale = None
    if ctx.needs_input_grad[1]:
        q = quantize_values(x, scale, zero_point, ctx.axis, ctx.block, precision) - offset
        slope = torch.where(inside, q - ratio, q)
        # LSQ scales the gradient by 1/√(values · high), so that scales and weights learn at the same relative pace.
        share = scale.numel() / (x.numel() * high)
        for_scale = _sum_to(gradient * slope, scale, ctx.axis, ctx.block) * share**0.5
    return for_x, for_scale, None, None, None, None


def _sum_to(values: torch.Tensor, scale: torch.Tensor, axis: int, block: int) -> torch.Tensor:
    """Sum over all values that share a scale."""
    if scale.dim() == 0:
        return values.sum()
    if block > 0:
        block = min(block, values.shape[-1])
        padded = torch.nn.functional.pad(values, (0, scale.shape[-1] * block - values.shape[-1]))
        return padded.reshape(*scale.shape, block).sum(-1)
    return values.sum(dim=[d for d in range(values.dim()) if d != axis % values.dim()])


fake_quantize.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("embedl_deploy::dequantize", mutates_args=())
def dequantize(
    values: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    axis: int,
    block: int,
    precision: str,  # noqa: ARG001 - the exporter reads it
) -> torch.Tensor:
    """The values that stored numbers stand for, in the dtype of ``scale``. Arguments as for :func:`fake_quantize`.

    ``values`` are of the dtype in which the format is stored, ``Precision(precision).format.storage``.
    """
    return dequantize_values(values.to(scale.dtype), scale, zero_point, axis, block)


@dequantize.register_fake
def _(values: torch.Tensor, scale: torch.Tensor, *_settings: Any) -> torch.Tensor:
    return torch.empty_like(values, dtype=scale.dtype)
