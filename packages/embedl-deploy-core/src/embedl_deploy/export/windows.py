"""Averages and unfoldings over windows as they are exported: torch.onnx writes some of them wrongly.

Of ``divisor_override`` it takes no notice, and a map without a batch it unfolds as if it had one.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

_Sizes = int | Sequence[int]


def average_pool(
    pool: Callable[..., torch.Tensor],
    axes: int,
    input: torch.Tensor,
    kernel_size: _Sizes,
    stride: _Sizes | None = None,
    padding: _Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> torch.Tensor:
    """What ``pool`` computes; with a divisor as the average of padded whole windows, times their size over it.

    Args:
        pool: ``F.avg_pool2d`` or ``F.avg_pool3d``, whose parameters the others are.
        axes: Over how many it pools.
        input: (N, C, ...) or (C, ...).
        kernel_size: Of a window.
        stride: From one window to the next; the window's size if there is none.
        padding: With zeros, on both sides.
        ceil_mode: Have windows that end beyond the padding, too, if they start before it.
        count_include_pad: Nothing where there is a divisor.
        divisor_override: What the sum of a window is divided by.
    """
    if divisor_override is None:
        return pool(input, kernel_size, stride, padding, ceil_mode, count_include_pad)
    window = _each(kernel_size, axes)
    step = _each(stride, axes) if stride else window
    around = _each(padding, axes)
    beyond = [one - 1 if ceil_mode else 0 for one in step]
    edges = [edge for at in reversed(range(axes)) for edge in (around[at], around[at] + beyond[at])]
    averages = pool(F.pad(input, edges) if any(edges) else input, window, step)
    if ceil_mode:
        for at in range(axes):
            found, started = averages.shape[at - axes], (input.shape[at - axes] + around[at] + step[at] - 1) // step[at]
            fewest = torch.sym_min(found, started)  # type: ignore[no-untyped-call]  # of torch
            averages = averages.narrow(at - axes, 0, fewest)  # without windows that start in the padding behind
    return averages * (math.prod(window) / divisor_override)


average_pool_2d = functools.partial(average_pool, F.avg_pool2d, 2)
average_pool_3d = functools.partial(average_pool, F.avg_pool3d, 3)


def unfold(input: torch.Tensor, *settings: Any, **named: Any) -> torch.Tensor:
    """(N, C, H, W) to (N, C·window, L) as ``F.unfold``; (C, H, W) as a batch of one."""
    if input.dim() == 3:
        return F.unfold(input[None], *settings, **named)[0]
    return F.unfold(input, *settings, **named)


def _each(sizes: _Sizes, axes: int) -> list[int]:
    found = [sizes] if isinstance(sizes, int) else list(sizes)
    return found * axes if len(found) == 1 else found
