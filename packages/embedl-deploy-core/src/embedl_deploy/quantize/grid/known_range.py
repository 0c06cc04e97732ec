"""The observer of a tensor with a known range: measures whether that range suits the data."""

import math

import torch

from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.grid.findings import Finding
from embedl_deploy.quantize.grid.observers import Observer, in_memory_order
from embedl_deploy.quantize.grid.operators import dequantize_values, quantize_values
from embedl_deploy.quantize.grid.scales import Grid, grid_from_range

#: Share of the sum of a tensor with a known range, such as a softmax, that may be rounded to zero.
MOST_ROUNDED_TO_ZERO = 0.25
#: How often a known range is halved to see what a smaller one would lose; a smaller share is not looked at.
_HALVINGS, _FEW = 16, 0.01
#: The energy of what rounding to a known range may add, as a share: it leaves 20 dB.
_MOST_NOISE = 0.01


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
        loses = self._noise >= _MOST_NOISE * self._energy or self._below[0] >= MOST_ROUNDED_TO_ZERO * self._total
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
