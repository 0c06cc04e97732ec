"""Pools that torch.onnx writes wrongly, or not at all, in a form that it writes as torch computes them.

A window that starts in the trailing padding is left out by torch, and ONNX's checker counts it where sizes are rounded
up. Of ``divisor_override`` the exporter takes no notice, and adaptive maxima it does not know.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from embedl_deploy.errors import ExportError

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
        pool: ``F.avg_pool2d`` or another, whose parameters the others are.
        axes: Over how many it pools.
        input: (N, C, ...) or (C, ...).
        kernel_size: Of a window.
        stride: From one window to the next; the window's size if there is none.
        padding: With zeros, on both sides.
        ceil_mode: Have windows that end beyond the padding, too, if they start before it.
        count_include_pad: Nothing where there is a divisor.
        divisor_override: What the sum of a window is divided by.
    """
    window = _each(kernel_size, axes)
    step = _each(stride, axes) if stride else window
    around = _each(padding, axes)
    if divisor_override is None:
        result = input
        for chosen, rounded_up in _passes(input, window, step, around, [1] * axes, ceil_mode):
            sizes = [_of(each, chosen, other) for each, other in ((window, 1), (step, 1), (around, 0))]
            result = pool(result, *sizes, rounded_up, count_include_pad)
        return result
    beyond = [one - 1 if ceil_mode else 0 for one in step]
    edges = [edge for at in reversed(range(axes)) for edge in (around[at], around[at] + beyond[at])]
    averages = pool(F.pad(input, edges) if any(edges) else input, window, step)
    if ceil_mode:
        for at in range(axes):
            found, started = averages.shape[at - axes], (input.shape[at - axes] + around[at] + step[at] - 1) // step[at]
            fewest = torch.sym_min(found, started)  # type: ignore[no-untyped-call]  # of torch
            averages = averages.narrow(at - axes, 0, fewest)  # without windows that start in the trailing padding
    return averages * (math.prod(window) / divisor_override)


average_pool_1d = functools.partial(average_pool, F.avg_pool1d, 1)
average_pool_2d = functools.partial(average_pool, F.avg_pool2d, 2)
average_pool_3d = functools.partial(average_pool, F.avg_pool3d, 3)


def max_pool(
    pool: Callable[..., torch.Tensor],
    axes: int,
    input: torch.Tensor,
    kernel_size: _Sizes,
    stride: _Sizes | None = None,
    padding: _Sizes = 0,
    dilation: _Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """What ``pool``, ``F.max_pool2d`` or another, computes of (N, C, ...) or (C, ...) over so many axes."""
    window = _each(kernel_size, axes)
    step = _each(stride, axes) if stride else window
    around, apart = _each(padding, axes), _each(dilation, axes)
    passes = _passes(input, window, step, around, apart, ceil_mode)
    if return_indices:  # of two pools they would be indices into what the first gives
        rounded_up = passes[0][1] if len(passes) == 1 else ceil_mode
        return pool(input, window, step, around, apart, ceil_mode=rounded_up, return_indices=True)
    result = input
    for chosen, rounded_up in passes:
        sizes = [_of(each, chosen, other) for each, other in ((window, 1), (step, 1), (around, 0), (apart, 1))]
        result = pool(result, *sizes, ceil_mode=rounded_up)
    return result


max_pool_1d = functools.partial(max_pool, F.max_pool1d, 1)
max_pool_2d = functools.partial(max_pool, F.max_pool2d, 2)
max_pool_3d = functools.partial(max_pool, F.max_pool3d, 3)


def adaptive_max_pool(
    pool: Callable[..., torch.Tensor],
    axes: int,
    input: torch.Tensor,
    output_size: int | Sequence[int | None],
    return_indices: bool = False,
) -> Any:
    """What ``pool``, ``F.adaptive_max_pool2d`` or another, computes; of fixed sizes axis by axis, from slices.

    Args:
        pool: What computes it, whose parameters the others are.
        axes: Over how many it pools.
        input: (N, C, ...) or (C, ...).
        output_size: One for all axes, or one for each, ``None`` for the input's.
        return_indices: Give where the maxima are, too, which has no form in ONNX: the export fails if they are used.
    """
    if return_indices:
        maxima = adaptive_max_pool(pool, axes, input, output_size)
        return maxima, pool(input, output_size, True)[1]
    asked = [output_size] * axes if isinstance(output_size, int) else output_size
    sizes = input.shape[-axes:]
    if all(isinstance(size, int) and size % (one or size) == 0 for one, size in zip(asked, sizes, strict=True)):
        windows = [size // (one or size) for one, size in zip(asked, sizes, strict=True)]
        return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[axes - 1](input, windows)
    result = input
    for at, (one, size) in enumerate(zip(asked, sizes, strict=True), -axes):
        if one is not None:
            result = _adaptive_maxima(result, at, size, one)
    return result


adaptive_max_pool_1d = functools.partial(adaptive_max_pool, F.adaptive_max_pool1d, 1)
adaptive_max_pool_2d = functools.partial(adaptive_max_pool, F.adaptive_max_pool2d, 2)
adaptive_max_pool_3d = functools.partial(adaptive_max_pool, F.adaptive_max_pool3d, 3)


def with_indices(pool: Callable[..., Any]) -> Callable[..., Any]:
    """One of the pools of maxima, for functions that give the indices whatever their arguments say."""

    def pooled(*args: Any, **named: Any) -> Any:
        return pool(*args, **{**named, "return_indices": True})

    return pooled


def _adaptive_maxima(input: torch.Tensor, at: int, size: int, wanted: int) -> torch.Tensor:
    """So many maxima along one axis of that size."""
    if wanted == 1:
        return input.amax(at, keepdim=True)
    if not isinstance(size, int):
        raise ExportError(
            f"the windows of adaptive maxima depend on the size, and that of dimension {at} is open: it has to be "
            "fixed, or the output 1 or None"
        )
    ends = [(part * size // wanted, -(-(part + 1) * size // wanted)) for part in range(wanted)]
    parts = [input.narrow(at, start, end - start).amax(at, keepdim=True) for start, end in ends]
    return input if size == wanted else torch.cat(parts, at)


def _passes(
    input: torch.Tensor,
    window: list[int],
    step: list[int],
    around: list[int],
    apart: list[int],
    ceil_mode: bool,
) -> list[tuple[list[bool], bool]]:
    """Pools one after the other that make one: over which axes, and whether the number of windows is rounded up.

    One that rounds up everywhere or nowhere; two where the last window counts along one axis and not along another.
    """
    everywhere = [True] * len(window)
    if not ceil_mode:
        return [(everywhere, False)]
    counts, left_out = [], []
    for size, kernel, stride, pad, dilation in zip(
        input.shape[-len(window) :], window, step, around, apart, strict=True
    ):
        reach = dilation * (kernel - 1) + 1
        rest = (size + 2 * pad - reach) % stride if isinstance(size, int) else None  # of open sizes nothing is known
        left_out.append(rest is not None and 0 < rest <= stride + pad - reach)
        counts.append(rest is None or rest > max(0, stride + pad - reach))
    if not any(left_out):
        return [(everywhere, True)]
    if not any(counts):
        return [(everywhere, False)]
    return [(counts, True), ([not one for one in counts], False)]


def _of(sizes: list[int], chosen: list[bool], other: int) -> list[int]:
    """The sizes along the chosen axes, and what leaves the others as they are."""
    return [size if take else other for size, take in zip(sizes, chosen, strict=True)]


def _each(sizes: _Sizes, axes: int) -> list[int]:
    found = [sizes] if isinstance(sizes, int) else list(sizes)
    return found * axes if len(found) == 1 else found
