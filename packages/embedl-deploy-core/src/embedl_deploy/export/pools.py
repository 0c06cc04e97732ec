"""Pools that torch.onnx writes wrongly, not at all or with detours, in a form that it writes as torch computes them.

A window that starts in the trailing padding is left out by torch, and ONNX's checker counts it where sizes are rounded
up. Of ``divisor_override`` the exporter takes no notice, and adaptive maxima it does not know.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from embedl_deploy.errors import ExportError

_Sizes = int | Sequence[int]


@dataclass(frozen=True)
class _Windows:
    """The windows of a pool, of each setting one number for each axis.

    Attributes:
        kernel: Their sizes.
        stride: From one window to the next.
        padding: On both sides.
        dilation: From one value of a window to the next.
    """

    kernel: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]

    @staticmethod
    def of(axes: int, kernel: _Sizes, stride: _Sizes | None, padding: _Sizes, dilation: _Sizes = 1) -> "_Windows":
        """From settings as torch takes them: without a stride one window begins where another ends."""
        sizes = _each(kernel, axes)
        return _Windows(sizes, _each(stride, axes) if stride else sizes, _each(padding, axes), _each(dilation, axes))

    def along(self, chosen: list[bool]) -> "_Windows":
        """Windows that pool along the chosen axes, and leave the others as they are."""
        settings = ((self.kernel, 1), (self.stride, 1), (self.padding, 0), (self.dilation, 1))
        return _Windows(
            *([size if take else other for size, take in zip(sizes, chosen, strict=True)] for sizes, other in settings)
        )

    def passes(self, input: torch.Tensor, ceil_mode: bool) -> list[tuple["_Windows", bool]]:
        """Pools one after the other that make one: their windows, and whether the number of them is rounded up.

        One that rounds up everywhere or nowhere; two where the last window counts along one axis and not along another.
        """
        if not ceil_mode:
            return [(self, False)]
        counts, left_out = [], []
        for size, kernel, stride, padding, dilation in zip(
            input.shape[-len(self.kernel) :], self.kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            reach = dilation * (kernel - 1) + 1
            rest = (size + 2 * padding - reach) % stride if isinstance(size, int) else None  # not known of open sizes
            left_out.append(rest is not None and 0 < rest <= stride + padding - reach)
            counts.append(rest is None or rest > max(0, stride + padding - reach))
        if not any(left_out):
            return [(self, True)]
        if not any(counts):
            return [(self, False)]
        return [(self.along(counts), True), (self.along([not one for one in counts]), False)]


def _each(sizes: _Sizes, axes: int) -> list[int]:
    found = [sizes] if isinstance(sizes, int) else list(sizes)
    return found * axes if len(found) == 1 else found


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
    windows = _Windows.of(axes, kernel_size, stride, padding)
    if divisor_override is None:
        result = input
        for part, rounded_up in windows.passes(input, ceil_mode):
            result = pool(result, part.kernel, part.stride, part.padding, rounded_up, count_include_pad)
        return result
    step, around = windows.stride, windows.padding
    beyond = [one - 1 if ceil_mode else 0 for one in step]
    edges = [edge for at in reversed(range(axes)) for edge in (around[at], around[at] + beyond[at])]
    averages = pool(F.pad(input, edges) if any(edges) else input, windows.kernel, step)
    if ceil_mode:
        for at in range(axes):
            found, started = averages.shape[at - axes], (input.shape[at - axes] + around[at] + step[at] - 1) // step[at]
            fewest = torch.sym_min(found, started)  # type: ignore[no-untyped-call]  # of torch
            averages = averages.narrow(at - axes, 0, fewest)  # without windows that start in the trailing padding
    return averages * (math.prod(windows.kernel) / divisor_override)


average_pool_1d = functools.partial(average_pool, F.avg_pool1d, 1)
average_pool_2d = functools.partial(average_pool, F.avg_pool2d, 2)
average_pool_3d = functools.partial(average_pool, F.avg_pool3d, 3)


def adaptive_average_pool(
    pool: Callable[..., torch.Tensor], axes: int, input: torch.Tensor, output_size: int | Sequence[int | None]
) -> torch.Tensor:
    """What ``pool``, ``F.adaptive_avg_pool2d`` or another, computes; a single window as a mean.

    As torch does itself, but for inputs in ``channels_last`` torch then asks for the memory format of the input, which
    would become a Gather in the file.

    Args:
        pool: What computes it, whose parameters the others are.
        axes: Over how many it pools.
        input: (N, C, ...) or (C, ...).
        output_size: One for all axes, or one for each, ``None`` for the input's.
    """
    if all(one == 1 for one in ([output_size] if isinstance(output_size, int) else output_size)):
        return input.mean(tuple(range(-axes, 0)), keepdim=True)
    return pool(input, output_size)


adaptive_average_pool_2d = functools.partial(adaptive_average_pool, F.adaptive_avg_pool2d, 2)
adaptive_average_pool_3d = functools.partial(adaptive_average_pool, F.adaptive_avg_pool3d, 3)


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
    windows = _Windows.of(axes, kernel_size, stride, padding, dilation)
    passes = windows.passes(input, ceil_mode)
    if return_indices and len(passes) > 1:  # of two pools they would be indices into what the first gives
        passes = [(windows, ceil_mode)]
    result: Any = input
    for part, rounded_up in passes:
        settings = (part.kernel, part.stride, part.padding, part.dilation)
        result = pool(result, *settings, ceil_mode=rounded_up, return_indices=return_indices)
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
