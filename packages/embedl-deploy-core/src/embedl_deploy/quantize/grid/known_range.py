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
#: How often a known range is halved to see what a smaller one would lose.
_HALVINGS = 16
#: The energy of what rounding to a known range may add, as a share: it leaves 20 dB.
_MOST_NOISE = 0.01
#: Sums are of whole numbers, because those of floating-point ones depend on the order. With the largest magnitude as 1,
#: the units are these; no value counts for more, and no more than ``_CHUNK`` are added up at a time, so that sums of
#: squares fit into 64 bits, and those of values that become zero into the 53 bits of a float64.
_UNITS, _SQUARE_UNITS, _CHUNK = 2.0**36, 2.0**44, 1 << 18


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
        #: What is below becomes zero; where the range is halved, below half of it.
        self._edge = config.precision.smallest * float(self._known.scale) / 2
        self._below = [0] * _HALVINGS
        self._total = self._energy = self._noise = 0

    def _observe(self, x: torch.Tensor) -> None:
        self._extremes(x)
        zero = self._known.zero_point
        settings = (None if zero is None else torch.tensor(zero, device=x.device), 0, 0, self.config.precision)
        magnitudes = in_memory_order(x.abs())
        scale = self._known.scale.to(magnitudes)
        for part in torch.split(magnitudes, _CHUNK):
            integers = quantize_values(part, scale, *settings)
            rounded = dequantize_values(integers, scale, *settings[:-1])
            shares, missed = ((each.double() / self._amax).clamp_(-1.0, 1.0) for each in (part, rounded - part))
            self._total += int((shares * _UNITS).long().sum())
            self._energy += int((shares.square() * _SQUARE_UNITS).long().sum())
            self._noise += int((missed.square() * _SQUARE_UNITS).long().sum())
            self._add_small(part, shares)

    def _add_small(self, magnitudes: torch.Tensor, shares: torch.Tensor) -> None:
        """Add up what becomes zero, by how often the range is halved.

        Args:
            magnitudes: (N,).
            shares: The same as shares of the largest, float64.
        """
        small = magnitudes < self._edge
        # The exponent of a float32 says between which powers of two it is: how often the edge may be halved.
        exponents = ((magnitudes[small].float() / self._edge).view(torch.int32) >> 23) - 127
        halved = (-1 - exponents).clamp_(0, _HALVINGS - 1)
        units = (shares[small] * _UNITS).trunc_()
        sums = torch.bincount(halved, units, _HALVINGS).flip(0).cumsum(0).flip(0).tolist()
        self._below = [before + int(more) for before, more in zip(self._below, sums, strict=True)]

    def _merge(self, other: "KnownRangeObserver") -> None:
        self._below = [mine + theirs for mine, theirs in zip(self._below, other._below, strict=True)]
        self._total += other._total
        self._energy += other._energy
        self._noise += other._noise

    @property
    def _takes_what_was_seen(self) -> bool:
        loses = self._noise >= _MOST_NOISE * self._energy or self._below[0] >= MOST_ROUNDED_TO_ZERO * self._total
        return loses and 0 < self.seen.furthest <= self._amax / 2

    @property
    def share_rounded_to_zero(self) -> float:
        """The sum of the magnitudes that the grid rounds to zero, as a share of all.

        At most so much, where the range is what was seen, which is not half, a quarter, … of the known one.
        """
        halved = int(math.log2(self._amax / self.seen.furthest)) if self._takes_what_was_seen else 0
        return self._below[min(halved, _HALVINGS - 1)] / self._total if self._total else 0.0

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
        # Of values so small that no square is a unit, all become zero.
        left = 10 * math.log10(self._energy / self._noise) if self._noise else 0.0
        return Finding(
            self.name,
            f"its range is that of the data, up to {self.seen.furthest:.2g}: that up to {self._amax:g} would leave "
            f"{left:.1f} dB of it",
            serious=False,
        )
