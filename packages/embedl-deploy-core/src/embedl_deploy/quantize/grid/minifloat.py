"""Rounds to floating-point formats of few bits."""

import torch

from embedl_deploy.numerics.formats import Precision


def round_to_float(values: torch.Tensor, precision: Precision) -> torch.Tensor:
    """The nearest numbers of a floating-point format, ties to even, in the dtype of ``values``.

    Args:
        values: Any shape; finite, and within the range of the format.
        precision: The format.
    """
    row = precision.format
    assert row.mantissa_bits is not None  # the caller has looked
    if torch.finfo(row.storage).eps == 2.0**-row.mantissa_bits:  # torch has the format itself
        return values.to(row.storage).to(values.dtype)
    # From one power of two to the next, steps are as wide as the last bit of the mantissa; below the smallest normal
    # number they are those of the subnormal ones. frexp gives |x| = m·2^e with m from 1/2 to 1: log2 |x| is in e − 1…e.
    _, exponent = torch.frexp(values)
    step = torch.ldexp(torch.ones_like(values), exponent - 1 - row.mantissa_bits).clamp_(min=row.smallest)
    return (values / step).round_().mul_(step)
