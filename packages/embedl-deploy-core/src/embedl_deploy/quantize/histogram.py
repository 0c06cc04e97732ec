"""A histogram over an unknown range that comes out the same however the values were split and ordered.

Bins start at zero and are a power of two wide. When a value lies beyond the last bin, the width doubles and bins are
joined in pairs. Multiplying by a power of two is exact in floating point, so a value ends up in the same bin whether
it was counted before or after a doubling.
"""

import math

import torch

#: Bins on each side of zero; the resolution is between 1/1024 and 1/2048 of the largest magnitude.
BINS = 2048


class Histogram:
    """Counts of values by magnitude, positive and negative apart.

    Attributes:
        counts: (2, BINS): row 0 for values ≥ 0, row 1 for magnitudes of values < 0; float64, exact up to 2⁵³.
        exponent: Bins are 2**exponent wide; ``None`` as long as nothing but zeros was seen.
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
            self.zeros += x.numel()
            return
        # frexp: amax = m · 2^e with m < 1, so amax < BINS · 2^(e − log2 BINS)
        self._widen(max(math.frexp(amax)[1] - int(math.log2(BINS)), -126))
        values = x.detach().reshape(-1)
        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        end = self.width * BINS
        if end > torch.finfo(values.dtype).max:  # 2¹²⁸ is the end for the largest float32
            values = values.double()
        positive = torch.histc(values, BINS, 0.0, end).cpu().double()
        self.counts[0] += positive
        if low < 0:
            # histc leaves out what lies outside its range; zeros were counted with the positive values
            negative = torch.histc(-values, BINS, 0.0, end).cpu().double()
            negative[0] -= (values == 0).sum().item() if high >= 0 else 0
            self.counts[1] += negative

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
