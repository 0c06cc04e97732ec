"""What calibration remembers of a tensor: a constant amount, however much data flows by."""

import math
from abc import ABC, abstractmethod

import torch

from embedl_deploy.errors import QuantizationConfigError, QuantizationError
from embedl_deploy.numerics.tensor_config import CalibrationMethod, TensorQuantConfig
from embedl_deploy.quantize.grid.findings import Finding, Seen
from embedl_deploy.quantize.grid.histogram import Histogram
from embedl_deploy.quantize.grid.operators import dequantize_values, quantize_values
from embedl_deploy.quantize.grid.samples import extremes_by_sample
from embedl_deploy.quantize.grid.scales import Grid, grid_from_histogram, grid_from_range, grid_of_weight, held_by

#: Share of the sum of a tensor with a known range, such as a softmax, that may be rounded to zero.
MOST_THAT_MAY_VANISH = 0.25
#: How often a known range is halved to see what a smaller one would lose; a smaller share is not looked at.
_HALVINGS, _FEW = 16, 0.01
#: The energy of what rounding to a known range may add, as a share: it leaves 20 dB.
_MOST_NOISE = 0.01
#: Weight of the newest batch in a moving average, as torch's own observers have it.
MOMENTUM = 0.01


def in_memory_order(x: torch.Tensor) -> torch.Tensor:
    """All values, (N,), in the order in which they lie in memory; no copy where they lie side by side.

    Neither extremes nor counts depend on the order, but going through a channels-last tensor in the order of its
    dimensions takes twenty times as long.
    """
    outermost_first = sorted(range(x.dim()), key=x.stride, reverse=True)
    return x.permute(outermost_first).reshape(-1)


class Observer(ABC):
    """Sees a tensor batch by batch, and says in the end how to quantize it.

    Args:
        config: How the tensor is to be quantized.
        name: The tensor, for messages.
    """

    def __init__(self, config: TensorQuantConfig, name: str) -> None:
        self.config = config
        self.name = name
        self.batches = 0
        self.seen = Seen()

    def observe(self, x: torch.Tensor) -> None:
        """Take note of a batch.

        Raises:
            QuantizationError: It holds NaN or infinity.
        """
        if x.numel() == 0:
            return
        self._observe(x.detach())
        self.batches += 1

    @abstractmethod
    def _observe(self, x: torch.Tensor) -> None: ...

    @abstractmethod
    def grid(self) -> Grid:
        """The scale and zero point found; called after at least one batch."""

    def finding(self, grid: Grid) -> Finding | None:
        """What users should know of the tensor, if anything; ``grid`` is the one found."""
        return self.seen.finding(self.name, max(map(abs, held_by(grid, self.config))))

    def _dwarfed(self, grid: Grid) -> Finding | None:
        """Whether its scale is that of a few samples, and too coarse for the others."""
        reach = max(map(abs, held_by(grid, self.config)))
        return self.seen.dwarfed(self.name, reach, self.config.precision.smallest * float(grid.scale))

    def _extremes(self, x: torch.Tensor) -> tuple[float, float]:
        """Smallest and largest value, checked."""
        by_sample = torch.stack(extremes_by_sample(x)).double().cpu().numpy()
        low, high = float(by_sample[0].min()), float(by_sample[1].max())
        if not (abs(low) < float("inf") and abs(high) < float("inf")):  # NaN fails both
            count = int((~torch.isfinite(x)).sum())
            raise QuantizationError(
                f"Calibration of {self.name}: batch {self.batches + 1} holds {count} NaN or infinite value(s) of "
                f"{x.numel()}. Find the input that causes them, or the layer before that overflows.",
                tensor=self.name,
            )
        self.seen.add(low, high, x.numel())
        self.seen.samples.add(abs(by_sample).max(0))
        return low, high


class RangeObserver(Observer):
    """Extremes of all values, or an exponential average of the batches' extremes."""

    low, high = 0.0, 0.0

    def _observe(self, x: torch.Tensor) -> None:
        low, high = self._extremes(x)
        if self.batches == 0:
            self.low, self.high = low, high
        elif self.config.calibration_method is CalibrationMethod.MOVING_AVERAGE:
            self.low += MOMENTUM * (low - self.low)
            self.high += MOMENTUM * (high - self.high)
        else:
            self.low, self.high = min(self.low, low), max(self.high, high)

    def grid(self) -> Grid:
        """From the range."""
        return grid_from_range(self.low, self.high, self.config)

    def finding(self, grid: Grid) -> Finding | None:
        """Also whether an average leaves out a batch that reaches much further."""
        found = super().finding(grid) or self._dwarfed(grid)
        return found or self.seen.left_out(self.name, max(map(abs, held_by(grid, self.config))))


class HistogramObserver(Observer):
    """Extremes and a histogram, for the methods that clip."""

    def __init__(self, config: TensorQuantConfig, name: str) -> None:
        super().__init__(config, name)
        self.histogram = Histogram()
        self.low, self.high = float("inf"), -float("inf")

    def _observe(self, x: torch.Tensor) -> None:
        low, high = self._extremes(x)
        values = in_memory_order(x)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.histogram.add(values, low, high)

    def grid(self) -> Grid:
        """By the method that the configuration names."""
        return grid_from_histogram(self.histogram, self.low, self.high, self.config)

    def finding(self, grid: Grid) -> Finding | None:
        """Also whether the method has clipped too much."""
        found = super().finding(grid) or self._dwarfed(grid)
        low, high = held_by(grid, self.config)
        if found is not None or (low <= self.low and self.high <= high):
            return found
        values, counts = self.histogram.centers()
        values = values.clamp(self.low, self.high)
        beyond = values - values.clamp(low, high)
        energy = float((counts * beyond.square()).sum() / (counts * values.square()).sum())
        share = float(counts[beyond != 0].sum() / counts.sum())
        return self.seen.clipped(self.name, max(-low, high), share, energy)


class WeightObserver(Observer):
    """A weight, which is the same in every batch: looked at once, per channel or block if so asked."""

    weight: torch.Tensor

    def _observe(self, x: torch.Tensor) -> None:
        if self.batches == 0:
            if self.config.scale_axis >= x.dim():
                raise QuantizationConfigError(
                    f"{self.name} has the shape {list(x.shape)}, and its format the axis {self.config.axis}; expected "
                    f"one from 0 to {x.dim() - 1}, or None for that of the output channels."
                )
            self._extremes(x)
            self.weight = x

    def grid(self) -> Grid:
        """By extremes, or by least squared error."""
        return grid_of_weight(self.weight, self.config)

    def finding(self, grid: Grid) -> Finding | None:
        """Whether it has channels, or blocks, of zeros: they stay zero, and may be pruned."""
        if not grid.is_constant_zero:
            return None
        return Finding(self.name, "zero, in whole or in some channel or block", serious=False)


class KnownRangeObserver(Observer):
    """Sees a tensor whose range is known beforehand, such as a softmax, and how much of it that range loses.

    Where rounding would leave little of it, or a good part would become zero, as of attention that is spread over
    hundreds of keys, the range is that of what was seen, as it is of any other tensor, if that is half of it or less.

    Args:
        config: How the tensor is to be quantized.
        name: The tensor, for messages.
        amax: The largest magnitude that it can have.
    """

    def __init__(self, config: TensorQuantConfig, name: str, amax: float) -> None:
        super().__init__(config, name)
        self._amax = amax
        self._known = grid_from_range(0.0, amax, config)
        edge = config.precision.smallest * float(self._known.scale) / 2
        #: What is below an edge becomes zero: of the known range, of half of it, of a quarter, ...
        self._edges = [edge / 2**halved for halved in range(_HALVINGS)]
        self._below = torch.zeros(_HALVINGS, dtype=torch.float64)
        self._total = self._energy = self._noise = 0.0

    def _observe(self, x: torch.Tensor) -> None:
        self._extremes(x)
        magnitudes = in_memory_order(x.abs())
        zero = self._known.zero_point
        settings = (None if zero is None else torch.tensor(zero, device=x.device), 0, 0, self.config.precision)
        scale = self._known.scale.to(magnitudes)
        integers = quantize_values(magnitudes, scale, *settings)
        rounded = dequantize_values(integers, scale, *settings[:-1])
        self._noise += float((rounded - magnitudes).square().sum(dtype=torch.float64))
        self._energy += float(magnitudes.square().sum(dtype=torch.float64))
        total = float(magnitudes.sum(dtype=torch.float64))
        small = magnitudes[magnitudes < self._edges[0]].double()
        self._total += total
        lost = float(small.sum())
        if lost <= _FEW * total:  # not worth a closer look
            self._below += lost
            return
        edges = torch.tensor(self._edges[::-1], dtype=torch.float64, device=small.device)
        sums = torch.bincount(torch.bucketize(small, edges, right=True), small, _HALVINGS)
        self._below += sums.cumsum(0).flip(0).cpu()

    @property
    def _takes_what_was_seen(self) -> bool:
        loses = self._noise >= _MOST_NOISE * self._energy or self._below[0] >= MOST_THAT_MAY_VANISH * self._total
        return bool(loses) and 0 < self.seen.furthest <= self._amax / 2

    @property
    def share_rounded_to_zero(self) -> float:
        """The sum of the magnitudes that the grid rounds to zero, as a share of all.

        At most so much, where the range is what was seen.
        """
        halved = int(math.log2(self._amax / self.seen.furthest)) if self._takes_what_was_seen else 0
        return float(self._below[min(halved, _HALVINGS - 1)]) / self._total if self._total else 0.0

    def grid(self) -> Grid:
        """That of the known range, or of what was seen."""
        return grid_from_range(0.0, self.seen.furthest, self.config) if self._takes_what_was_seen else self._known

    def finding(self, grid: Grid) -> Finding | None:
        """Whether it is one value throughout, or the known range is not taken."""
        found = self.seen.finding(self.name, 0.0)
        if found is not None and self.seen.low == self.seen.high == self._amax:
            what = f"{self._amax:g} everywhere, as a softmax over a single key is, whatever the data"
            return Finding(self.name, what, serious=False)
        if found is not None or not self._takes_what_was_seen:
            return found
        left = 10 * math.log10(self._energy / self._noise)
        return Finding(
            self.name,
            f"its range is that of the data, up to {self.seen.furthest:.2g}: that up to {self._amax:g} would leave "
            f"{left:.1f} dB of it",
            serious=False,
        )


def make_observer(config: TensorQuantConfig, name: str, *, is_weight: bool, amax: float | None = None) -> Observer:
    """The observer that a configuration asks for; ``amax`` is the largest magnitude where that is known beforehand."""
    if amax is not None:
        return KnownRangeObserver(config, name, amax)
    if is_weight:
        return WeightObserver(config, name)
    if config.calibration_method in (CalibrationMethod.MINMAX, CalibrationMethod.MOVING_AVERAGE):
        return RangeObserver(config, name)
    return HistogramObserver(config, name)
