"""Findings of calibration: unrepresentative data, and channels of zeros in weights."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from embedl_deploy.quantize.grid.samples import Samples

#: How many times as far as all others a batch must reach to be told, and of how many batches.
_FAR, _ENOUGH_BATCHES = 10.0, 4

#: What clipping has to leave of a tensor. On ordinary data it leaves 35 dB and more, whatever the method, about as much
#: as rounding to 8 bits does; this is a hundredth of the tensor's energy lost.
_LEAST_AFTER_CLIPPING_DB = 20.0

#: A sample that reaches less than two steps is left with five numbers; rounding leaves 9 dB of it, where eight bits
#: leave 35 dB and more of ordinary data. In a format with few numbers two steps are much of the range, so it must be a
#: sixteenth of the range as well. Sparse samples and tails, such as of ReLU, GELU or a softmax, have large values of
#: their own, and so have those of an outlier channel: only samples that others dwarf fall below. Half of them must,
#: because a scale that suits most samples is what a scale is for.
_LEAST_STEPS, _LEAST_OF_RANGE, _MOST_DWARFED = 2.0, 1 / 16, 0.5


@dataclass(frozen=True)
class Finding:
    """Something about one tensor.

    Attributes:
        tensor: The tensor.
        what: What was noticed.
        serious: Whether the data, or the model before the tensor, should be looked at.
    """

    tensor: str
    what: str
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.tensor}: {self.what}"


@dataclass
class Seen:
    """The extremes of a tensor over all batches, and those of the batch that reaches furthest.

    Attributes:
        low: The smallest value.
        high: The largest.
        furthest: The largest magnitude.
        batch: In which batch that was, counted from 1.
        second: The largest magnitude in any other batch.
        values: How many values there were.
        batches: How many batches.
        samples: How far each sample reaches.
        rank: Which process saw the batch that reaches furthest, if there are several.
    """

    low: float = math.inf
    high: float = -math.inf
    furthest: float = -1.0
    batch: int = 0
    second: float = -1.0
    values: int = 0
    batches: int = field(default=0)
    samples: Samples = field(default_factory=Samples)
    rank: int | None = None

    @property
    def where(self) -> str:
        """Which batch reaches furthest, in words."""
        if self.rank is None:
            return f"batch {self.batch} of {self.batches}"
        return f"batch {self.batch} of rank {self.rank}, of {self.batches} in all,"

    def merge(self, other: "Seen") -> None:
        """Take note of the batches that another has seen; of two that reach as far, its own stays the furthest."""
        self.batches += other.batches
        self.low, self.high, self.values = (
            min(self.low, other.low),
            max(self.high, other.high),
            self.values + other.values,
        )
        self.samples.merge(other.samples)
        if other.furthest > self.furthest:
            self.second = max(self.furthest, other.second)
            self.furthest, self.batch, self.rank = other.furthest, other.batch, other.rank
        else:
            self.second = max(self.second, other.furthest)

    def add(self, low: float, high: float, values: int) -> None:
        """Take note of a batch."""
        self.batches += 1
        self.low, self.high, self.values = min(self.low, low), max(self.high, high), self.values + values
        reach = max(abs(low), abs(high))
        if reach > self.furthest:
            self.furthest, self.second, self.batch = reach, self.furthest, self.batches
        else:
            self.second = max(self.second, reach)

    def finding(self, tensor: str, reach: float) -> Finding | None:
        """What is strange about the values, if anything.

        Args:
            tensor: The tensor.
            reach: The largest magnitude that its quantizer holds.
        """
        if self.values < 2:
            return None
        if self.low == self.high:
            value = "zero" if self.low == 0 else f"{self.low:.3g}"
            scale = ", so its scale is 1" if self.low == 0 else ""
            return Finding(tensor, f"{value} everywhere in all calibration data{scale}")
        if self.batches >= _ENOUGH_BATCHES and min(self.furthest, reach) > _FAR * self.second > 0:
            return Finding(
                tensor,
                f"{self.where} reaches {self.furthest:.3g}, all others {self.second:.3g} at "
                "most; its scale is that of one batch",
            )
        return None

    def dwarfed(self, tensor: str, reach: float, step: float) -> Finding | None:
        """Whether other samples set a scale that leaves most of them next to nothing.

        Args:
            tensor: The tensor.
            reach: The largest magnitude that its quantizer holds.
            step: Its smallest magnitude above zero.
        """
        share = self.samples.share_below(min(_LEAST_STEPS * step, _LEAST_OF_RANGE * reach))
        if share < _MOST_DWARFED:
            return None
        return Finding(
            tensor,
            f"{share:.0%} of its samples reach less than {_LEAST_STEPS:g} steps of its scale, which leaves next to "
            f"nothing of them: half reach {self.samples.median():.2g} at most, and one in "
            f"{self.where} {self.furthest:.3g}",
        )

    def left_out(self, tensor: str, reach: float) -> Finding | None:
        """The batch that reaches much further than the quantizer does, if there is one."""
        if not self.furthest > _FAR * reach > 0:
            return None
        return Finding(
            tensor,
            f"{self.where} reaches {self.furthest:.3g}, and its scale {reach:.3g}: what is beyond is clipped",
        )

    def clipped(self, tensor: str, reach: float, share: float, energy: float) -> Finding | None:
        """What is lost to clipping, if it is much.

        Args:
            tensor: The tensor.
            reach: The largest magnitude that its quantizer holds.
            share: Of its values, those beyond.
            energy: Σ (clipped − x)² / Σ x².
        """
        if energy <= 10 ** (-_LEAST_AFTER_CLIPPING_DB / 10):
            return None
        left = -10 * math.log10(energy)
        return Finding(
            tensor,
            f"{share:.2%} of its values are clipped, which alone leaves {left:.1f} dB of it: it reaches "
            f"{self.furthest:.3g}, in {self.where.rstrip(',')}, and its scale {reach:.3g}",
        )


def summary(findings: Iterable[Finding]) -> str | None:
    """The serious ones in one line, if there are any."""
    serious = [finding for finding in findings if finding.serious]
    if not serious:
        return None
    more = f"; {len(serious) - 2} more" if len(serious) > 2 else ""
    return (
        f"calibration data that may not be representative: {'; '.join(map(str, serious[:2]))}{more}. Pass data as the "
        "model will see it; quantization_report(model) lists all."
    )
