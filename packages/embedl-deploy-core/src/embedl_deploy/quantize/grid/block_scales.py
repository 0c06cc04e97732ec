"""Scales of formats that are defined in blocks: numbers of a format themselves.

MX formats (OCP Microscaling Formats (MX) Specification 1.0, 2023, section 6.3): a scale is a power of two, E8M0,

    s = 2^(floor(log2 max|x|) − e),   e the exponent of the largest number: 2 of E2M1 (6), 8 of E4M3 (448)

from 2⁻¹²⁷ to 2¹²⁷. The largest value of a block may lie beyond the largest number, and becomes it.

NVFP4 ("Pretraining Large Language Models with NVFP4", 2025, section 2 and appendix C.1): a scale is a number of
E4M3, times one float32 scale of the tensor, which lets the block that reaches furthest have the largest number of E4M3:

    t = max|X| / (448 · 6),   s = E4M3(max|x| / 6 / t) · t

A block of zeros has the scale 1, as everywhere here; of NVFP4 that is t.
"""

import torch

from embedl_deploy.numerics.formats import Precision

#: A block that reaches less far than the smallest number of E4M3 does not get a scale of zero.
_SMALLEST_E4M3, _LARGEST_E4M3 = Precision.FP8.smallest, Precision.FP8.high
_LARGEST_EXPONENT = 127


def scale_of_tensor(amax: torch.Tensor, precision: Precision) -> torch.Tensor | None:
    """The float32 scale of a tensor, a scalar; ``None`` for formats without.

    Args:
        amax: The largest magnitude of each block, (N,).
        precision: A format whose scales have a format.
    """
    if not precision.format.second_scale:
        return None
    largest = amax.detach().max().double() if amax.numel() else amax.new_zeros((), dtype=torch.float64)
    scale = (largest / (_LARGEST_E4M3 * precision.high)).float().clamp(min=torch.finfo(torch.float32).tiny)
    return torch.where(largest == 0, 1.0, scale)


def block_scales(amax: torch.Tensor, precision: Precision, tensor_scale: torch.Tensor | None) -> torch.Tensor:
    """The scales of blocks by their largest magnitudes, float32: what values are divided by.

    Args:
        amax: Any shape.
        precision: A format whose scales have a format.
        tensor_scale: What :func:`scale_of_tensor` gave.
    """
    if tensor_scale is None:
        return torch.where(amax == 0, 1.0, _power_of_two(amax, precision))
    ratio = amax.double() / precision.high / tensor_scale.double()
    numbers = ratio.float().clamp(_SMALLEST_E4M3, _LARGEST_E4M3).to(torch.float8_e4m3fn).float()
    return torch.where(amax == 0, 1.0, numbers) * tensor_scale


def _power_of_two(amax: torch.Tensor, precision: Precision) -> torch.Tensor:
    """2^(floor(log2 amax) − e), within E8M0."""
    _, exponent = torch.frexp(amax.float())  # a magnitude is m·2^exponent with m from 1/2 to 1
    largest = torch.frexp(torch.tensor(precision.high)).exponent.to(amax.device)
    power = (exponent - largest).clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    return torch.ldexp(torch.ones_like(amax, dtype=torch.float32), power)


def stored_scales(scale: torch.Tensor, precision: Precision, tensor_scale: torch.Tensor | None) -> torch.Tensor:
    """The scales of blocks as numbers of their format, from what :func:`block_scales` gave.

    Those of E8M0 are bytes, uint8: torch's exporter does not know ``float8_e8m0fnu``.
    """
    dtype = precision.format.scale_dtype
    assert dtype is not None  # the caller has looked
    stored = (scale if tensor_scale is None else scale / tensor_scale).to(dtype)
    return stored.view(torch.uint8) if dtype is torch.float8_e8m0fnu else stored


def scales_as_stored(stored: torch.Tensor, tensor_scale: torch.Tensor | None) -> torch.Tensor:
    """The inverse of :func:`stored_scales`, float32."""
    if stored.dtype is torch.uint8:
        stored = stored.view(torch.float8_e8m0fnu)
    return stored.float() if tensor_scale is None else stored.float() * tensor_scale
