"""A histogram over an unknown range that does not depend on how values are ordered or split into batches.

Bins start at zero and are a power of two wide. When a value lies beyond the last bin, the width doubles and bins are
joined in pairs. Multiplying by a power of two is exact in floating point, so a value ends up in the same bin whether
it was counted before or after a doubling.
"""

import math

import torch

#: Bins on each side of zero; the resolution is between 1/1024 and 1/2048 of the largest magnitude.
BINS = 2048
#: Values that are counted at a time: few enough that what they are turned into stays in the cache.
_CHUNK = 1 << 18
#: The same where ``torch.histc`` counts: in float32, which has all whole numbers up to here.
_CHUNK_IN_FLOAT = 1 << 24


class Histogram:
    """Counts of values by magnitude, positive and negative apart.

    Attributes:
        counts: (2, BINS): row 0 for values ≥ 0, row 1 for magnitudes of values < 0; float64, exact up to 2⁵³.
        exponent: Bins are 2**exponent wide; ``None`` while only zeros have been seen.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(2, BINS, dtype=torch.float64)
        self.exponent: int | None = None
        self.zeros = 0

    @property
    def width(self) -> float:
        """Width of a bin."""
        return 0.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    def add(self, x: torch.Tensor, low: float, high: float) -> None:
        """Count the values of ``x``, whose smallest and largest are ``low`` and ``high``, both finite."""
        amax = max(abs(low), abs(high))
        if amax == 0.0:
            if self.exponent is None:
                self.zeros += x.numel()
            else:
                self.counts[0, 0] += x.numel()
            return
        # frexp: amax = m · 2^e with m < 1, so amax < BINS · 2^(e − log2 BINS)
        self._widen(max(math.frexp(amax)[1] - int(math.log2(BINS)), -126))
        values = x.detach().reshape(-1)
        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        self.counts += _count(values, self.exponent or 0, signed=low < 0)

    def merge(self, other: "Histogram") -> None:
        """Count the values that another has counted: exactly what one histogram of all values would hold."""
        if other.exponent is None:
            if self.exponent is None:
                self.zeros += other.zeros
            else:
                self.counts[0, 0] += other.zeros
            return
        self._widen(other.exponent)
        assert self.exponent is not None  # it has just been widened
        wider = Histogram()
        wider.exponent, wider.counts = other.exponent, other.counts.clone()
        wider._widen(self.exponent)
        self.counts += wider.counts

    def _widen(self, exponent: int) -> None:
        if self.exponent is None:
            self.exponent = exponent
            self.counts[0, 0] += self.zeros
            self.zeros = 0
        while self.exponent < exponent:
            joined = self.counts.reshape(2, BINS // 2, 2).sum(-1)
            self.counts = torch.cat((joined, torch.zeros_like(joined)), dim=1)
            self.exponent += 1

    def magnitudes(self) -> torch.Tensor:
        """Counts by magnitude, (BINS,)."""
        return self.counts.sum(0)

    def centers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The middles of all bins that are not empty, negative ones too, and their counts; float64."""
        middle = (torch.arange(BINS, dtype=torch.float64) + 0.5) * self.width
        values = torch.cat((middle, -middle))
        counts = self.counts.reshape(-1)
        kept = counts > 0
        return values[kept], counts[kept]


def _count(values: torch.Tensor, exponent: int, *, signed: bool) -> torch.Tensor:
    """How many values, all of magnitudes below BINS · 2**exponent, lie in each bin.

    On the CPU, whole numbers of 16 bits are counted in less than half the time that ``torch.histc`` takes to find bins
    for floating-point ones.

    Args:
        values: One-dimensional, float32 or float64, no NaN.
        exponent: Bins are 2**exponent wide. Multiplying by the inverse is exact but for numbers far below one bin.
        signed: Whether there are values below zero.

    Returns:
        (2, BINS), as :attr:`Histogram.counts`.
    """
    inverse = 2.0**-exponent
    if values.device.type != "cpu":
        found = torch.zeros(2 * BINS, dtype=torch.float64)
        for part in torch.split(values, _CHUNK_IN_FLOAT):
            middles = torch.trunc(part * inverse) + (BINS + 0.5)
            found += torch.histc(middles, 2 * BINS, 0.0, 2.0 * BINS).cpu().double()
        return _by_sign(found, int((values < 0).sum()))

    counts, negative = torch.zeros(2 * BINS, dtype=torch.int64), 0
    size = min(_CHUNK, len(values))
    scaled, bins = torch.empty(size, dtype=values.dtype), torch.empty(size, dtype=torch.int16)
    below_zero = torch.empty(size, dtype=torch.bool)
    for part in torch.split(values, _CHUNK):
        part_scaled, part_bins, part_below = (buffer[: len(part)] for buffer in (scaled, bins, below_zero))
        torch.mul(part, inverse, out=part_scaled)
        part_bins.copy_(part_scaled)  # rounds towards zero
        counts += torch.bincount(part_bins.add_(BINS), minlength=2 * BINS)
        if signed:  # count_nonzero takes a twentieth of the time of sum
            negative += int(torch.count_nonzero(torch.lt(part, 0, out=part_below)))
    return _by_sign(counts.double(), negative)


def _by_sign(counts: torch.Tensor, negative: int) -> torch.Tensor:
    """Split counts of the bins −BINS … BINS − 1, of shape (2·BINS,), into a row for each sign.

    Args:
        counts: For negative and positive values together.
        negative: How many of the values are negative.

    Values next to zero on either side share the bin 0 of ``counts``.
    """
    below = counts[1 : BINS + 1].flip(0)
    below[0] = negative - below[1:].sum()
    above = counts[BINS:].clone()
    above[0] -= below[0]
    return torch.stack((above, below))
