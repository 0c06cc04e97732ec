"""Observers: what calibration records about a tensor, in constant memory."""

from abc import ABC, abstractmethod
from typing import Any

import torch

from embedl_deploy.errors import NotFiniteError, QuantizationConfigError
from embedl_deploy.numerics.tensor_config import CalibrationMethod, TensorQuantConfig
from embedl_deploy.quantize.grid.findings import Finding, Seen
from embedl_deploy.quantize.grid.histogram import Histogram
from embedl_deploy.quantize.grid.samples import extremes_by_sample
from embedl_deploy.quantize.grid.scales import Grid, grid_from_histogram, grid_from_range, grid_of_weight, held_by

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

    def merge(self, other: "Observer") -> None:
        """Take note of all batches that another observer of the same tensor has seen.

        What comes of it is, bit for bit, what one observer of all batches has, in whatever order; but not of a moving
        average, which has an order.
        """
        if other.batches == 0:
            return
        self._merge(other)
        self.seen.merge(other.seen)
        self.batches += other.batches

    @abstractmethod
    def _merge(self, other: Any) -> None: ...

    @abstractmethod
    def grid(self) -> Grid:
        """The scale and zero point found; called after at least one batch."""

    def finding(self, grid: Grid) -> Finding | None:
        """What users should know of the tensor, if anything; ``grid`` is the one found."""
        return self.seen.finding(self.name, max(map(abs, held_by(grid, self.config))))

    def _dwarfed(self, grid: Grid) -> Finding | None:
        """Whether its scale is that of a few samples, and too coarse for the others."""
        reach = max(map(abs, held_by(grid, self.config)))
        return self.seen.dwarfed(self.name, reach, self.config.precision.span[0] * float(grid.scale))

    def _extremes(self, x: torch.Tensor) -> tuple[float, float]:
        """Smallest and largest value, checked."""
        by_sample = torch.stack(extremes_by_sample(x)).double().cpu().numpy()
        low, high = float(by_sample[0].min()), float(by_sample[1].max())
        if not (abs(low) < float("inf") and abs(high) < float("inf")):  # NaN fails both
            count = int((~torch.isfinite(x)).sum())
            raise NotFiniteError(
                f"Calibration of {self.name}: {count} of {x.numel()} values in batch {self.batches + 1} are NaN or "
                "infinite. Find the input that causes them, or the earlier layer that overflows.",
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

    def _merge(self, other: "RangeObserver") -> None:
        if self.batches == 0:
            self.low, self.high = other.low, other.high
        else:
            self.low, self.high = min(self.low, other.low), max(self.high, other.high)

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

    def _merge(self, other: "HistogramObserver") -> None:
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.histogram.merge(other.histogram)

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

    def _merge(self, other: "WeightObserver") -> None:
        """Nothing: every rank has the same weight, and sends it to no other."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "weight"}

    def grid(self) -> Grid:
        """By extremes, or by least squared error."""
        return grid_of_weight(self.weight, self.config)

    def finding(self, grid: Grid) -> Finding | None:
        """Whether it has channels, or blocks, of zeros: they stay zero, and may be pruned."""
        if not grid.is_constant_zero:
            return None
        return Finding(self.name, "zero, in whole or in some channel or block", serious=False)
