"""Computes scales and zero points from what an observer recorded."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedl_deploy.numerics.formats import Precision
from embedl_deploy.numerics.tensor_config import CalibrationMethod, TensorQuantConfig
from embedl_deploy.quantize.grid.block_scales import scale_of_tensor
from embedl_deploy.quantize.grid.histogram import BINS, Histogram
from embedl_deploy.quantize.grid.operators import dequantize_values, quantize_values
from embedl_deploy.quantize.grid.steps import SHARES, Steps, allowed_scale, scale_of
from embedl_deploy.quantize.grid.weight_search import InputMoments, best_amax, groups_of, shape_of_scale

#: The smallest zero point of a centered grid, as a share of the largest number; steps are a third smaller with it.
_LEAST_CENTER = 0.5


@dataclass(frozen=True)
class Grid:
    """Where the numbers of a format lie.

    Attributes:
        scale: Float32, positive, finite; a scalar, (C,), or one per block.
        zero_point: For asymmetric ranges, an integer.
        is_constant_zero: Nothing but zeros was seen, in the whole tensor or in some channel; the scale there is 1.
        tensor_scale: A factor that the scales of blocks share, where the format has one; it is in ``scale`` already.
    """

    scale: torch.Tensor
    zero_point: int | None = None
    is_constant_zero: bool = False
    tensor_scale: torch.Tensor | None = None

    def to(self, device: str) -> "Grid":
        """The same grid with its scale on a device."""
        return replace(self, scale=self.scale.to(device))


def held_by(grid: Grid, config: TensorQuantConfig) -> tuple[float, float]:
    """The smallest and the largest value of a grid with one scale; what lies beyond is clipped to them."""
    scale, zero_point = float(grid.scale), grid.zero_point or 0
    if config.precision.format.second_scale:
        _, largest = config.precision.span
        return -largest * scale, largest * scale
    return (config.precision.low - zero_point) * scale, (config.precision.high - zero_point) * scale


def grid_from_range(low: float, high: float, config: TensorQuantConfig) -> Grid:
    """A grid that covers ``low``…``high`` and 0; of scales that have a scale, that one."""
    precision = config.precision
    if config.symmetric:
        amax = torch.tensor(max(abs(low), abs(high)), dtype=torch.float64)
        of_tensor = scale_of_tensor(amax, precision)
        if of_tensor is not None:
            return Grid(of_tensor, None, bool(amax == 0))
        return Grid(scale_of(amax, config), None, bool(amax == 0))
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return Grid(torch.tensor(1.0), 0, True)
    span = torch.tensor((high - low) / (precision.high - precision.low), dtype=torch.float64)
    scale = allowed_scale(span, config)
    zero_point = round(precision.low - low / float(scale))
    if config.centered and abs(zero_point) < _LEAST_CENTER * precision.high:
        return replace(grid_from_range(low, high, replace(config, symmetric=True, centered=False)), zero_point=0)
    return Grid(scale.float(), int(min(max(zero_point, precision.low), precision.high)))


def grid_from_histogram(histogram: Histogram, low: float, high: float, config: TensorQuantConfig) -> Grid:
    """A grid that may leave out the rarest, largest values."""
    if histogram.exponent is None:
        return grid_from_range(0.0, 0.0, config)
    if config.calibration_method is CalibrationMethod.PERCENTILE:
        return _percentile(histogram, low, high, config)
    if config.calibration_method is CalibrationMethod.ENTROPY:
        amax = min(_entropy_amax(histogram, config.precision), max(abs(low), abs(high)))
        return grid_from_range(-amax, amax, config)
    return _least_squares(histogram, low, high, config)


def _least_squares(histogram: Histogram, low: float, high: float, config: TensorQuantConfig) -> Grid:
    """The share of the range whose grid has the least squared error over the middles of the bins."""
    centers, counts = (side.numpy() for side in histogram.centers())
    values, precision = centers.clip(low, high), config.precision
    if config.symmetric:  # all scales at once: many small tensors would take longer than the search
        grids = [Grid(scale) for scale in scale_of(SHARES * max(abs(low), abs(high)), config)]
    else:
        grids = [grid_from_range(low * share, high * share, config) for share in SHARES.tolist()]
    if precision.is_float:
        tensor = torch.from_numpy(values)
        errors = [float((counts * (_rounded_float(tensor, grid, precision) - values) ** 2).sum()) for grid in grids]
        return grids[int(np.argmin(errors))]
    # In NumPy: torch rounds a few thousand values in several threads, and waking them takes longer than the rounding.
    buffer, errors = np.empty_like(values), []
    for grid in grids:
        step, zero_point = float(grid.scale), grid.zero_point or 0
        np.rint(np.multiply(values, 1 / step, out=buffer), out=buffer)
        np.clip(buffer, precision.low - zero_point, precision.high - zero_point, out=buffer)
        buffer *= step
        buffer -= values
        errors.append(float(np.square(buffer, out=buffer) @ counts))
    return grids[int(np.argmin(errors))]


def _rounded_float(values: torch.Tensor, grid: Grid, precision: Precision) -> npt.NDArray[Any]:
    """Values quantized to a floating-point format and dequantized, in float64."""
    scale = grid.scale.double()
    q = quantize_values(values, scale, None, 0, 0, precision)
    return dequantize_values(q, scale, None, 0, 0).numpy()


def _percentile(histogram: Histogram, low: float, high: float, config: TensorQuantConfig) -> Grid:
    total = float(histogram.counts.sum())
    wanted = total * config.percentile / 100
    if config.symmetric:
        reached = torch.searchsorted(histogram.magnitudes().cumsum(0), torch.tensor(wanted, dtype=torch.float64))
        amax = min((int(reached) + 1) * histogram.width, max(abs(low), abs(high)))
        return grid_from_range(-amax, amax, config)
    allowed = (total - wanted) / 2  # values left out at each end
    above, below = histogram.counts.flip(1).cumsum(1)
    bins_above, bins_below = (int((side <= allowed).sum()) for side in (above, below))
    top = min((BINS - bins_above) * histogram.width, max(high, 0.0))
    bottom = max(-(BINS - bins_below) * histogram.width, min(low, 0.0))
    return grid_from_range(bottom, top, config)


def _entropy_amax(histogram: Histogram, precision: Precision) -> float:
    """The range whose quantized distribution has the least Kullback-Leibler divergence from the original.

    The reference distribution is the histogram cut at the range, what lies beyond added to its last bin; the candidate
    merges the bins into as many levels as the format has magnitudes and spreads each level evenly over its bins that
    were not empty (Migacz 2017, slides 31 to 38).
    """
    counts = histogram.magnitudes().numpy()
    used = int(counts.nonzero()[0].max()) + 1
    counts[0] = counts[1]  # zeros, of which a ReLU makes a great many, are exact on any grid
    levels = min(int(precision.high) + 1, BINS)
    if used <= levels:
        return used * histogram.width
    # All ranges at once. With p the reference and q the candidate, Σ p·log(p / q) is taken apart into Σ p·log p, a
    # running sum but for the last bin, and Σ p·log q, where q is the same throughout a level.
    ends = np.append(np.arange(levels, used, max(1, (used - levels) // 256)), used)
    ends = ends[_sums_up_to(counts, ends) > 0]
    total, inside = counts.sum(), _sums_up_to(counts, ends)
    beyond = total - inside
    starts = -(-np.arange(levels + 1) * ends[:, None] // levels)  # of levels, in bins: (ends, levels + 1)
    sums = np.diff(_sums_up_to(counts, starts))
    spread = sums / np.diff(_sums_up_to(counts > 0, starts)).clip(min=1)
    last = counts[ends - 1]
    filled = last > 0  # otherwise the candidate has nothing where the reference has all that lies beyond
    p_log_p = _sums_up_to(_x_log_y(counts, counts), ends) - _x_log_y(last, last)
    p_log_p += np.where(filled, _x_log_y(last + beyond, last + beyond), 0.0)
    p_log_q = _x_log_y(sums, spread).sum(1) + _x_log_y(np.where(filled, beyond, 0.0), spread[:, -1])
    compared = np.where(filled, total, inside)
    divergence = p_log_p - p_log_q - compared * np.log(total / inside)
    divergence += np.where(filled, 0.0, beyond) * math.log(1e12)
    return float(ends[divergence.argmin()]) * histogram.width


def _sums_up_to(values: npt.NDArray[Any], ends: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """For each of ``ends``, the sum of that many leading values."""
    return np.concatenate(([0.0], values.cumsum()))[ends]  # type: ignore[no-any-return]


def _x_log_y(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """x·log y, 0 where x is 0."""
    return x * np.log(np.where(x > 0, y, 1.0))


def grid_of_weight(weight: torch.Tensor, config: TensorQuantConfig, inputs: InputMoments | None = None) -> Grid:
    """The grid of a weight: one scale, one per channel, or one per block of its last axis.

    Args:
        weight: Any shape.
        config: Its format.
        inputs: What the weight's last axis is multiplied with. Scales are then searched for the least expected error of
            the products, whatever the configuration's method; for symmetric formats.
    """
    groups, shape = groups_of(weight.detach(), config)
    if not config.symmetric:
        low, high = torch.aminmax(groups)
        return grid_from_range(float(low), float(high), config)
    amax = groups.abs().amax(1)
    empty = amax == 0
    steps = Steps.of_weight(amax, config)
    if inputs is not None or config.calibration_method is CalibrationMethod.MSE:
        amax = best_amax(groups, amax, steps, None if inputs is None else inputs.by_group(weight, config))
    return Grid(steps.scale(amax).reshape(shape), None, bool(empty.any()), steps.of_tensor)


def grid_like_that_of(weight: torch.Tensor, config: TensorQuantConfig) -> Grid:
    """Some grid of the form of a weight's; the weight need not have values."""
    if not config.symmetric:
        return Grid(torch.tensor(1.0), 0)
    amax = torch.ones(shape_of_scale(weight, config))
    steps = Steps.of_weight(amax.reshape(-1), config)
    return Grid(steps.scale(amax.reshape(-1)).reshape(amax.shape), None, False, steps.of_tensor)
