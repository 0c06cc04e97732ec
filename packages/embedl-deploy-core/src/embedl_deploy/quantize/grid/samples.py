"""Measures the range of each sample, to find samples that lose their information to a scale set by others."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import torch

#: Magnitudes are counted in steps of 2^(1/8), nine percent: a constant amount is kept, however much data flows by.
_BINS_OF_AN_OCTAVE = 8


def extremes_by_sample(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest and the largest value of each slice along dimension 0, (N,); all of a vector is one sample.

    Slices are gone through in the order in which they lie in memory: see ``in_memory_order`` of the observers.
    """
    if x.dim() < 2:
        x = x.reshape(1, -1)
    outermost_first = sorted(range(1, x.dim()), key=x.stride, reverse=True)
    rows = x.permute(0, *outermost_first).reshape(x.shape[0], -1)
    return rows.amin(1), rows.amax(1)  # aminmax of a dimension takes four times as long


class Samples:
    """Counts of samples by their largest magnitude; those that are zero throughout are left out."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, reaches: npt.NDArray[np.floating]) -> None:
        """Count samples, (N,) largest magnitudes, all finite."""
        bins = np.floor(_BINS_OF_AN_OCTAVE * np.log2(reaches[reaches > 0].astype(np.float64))).astype(np.int64)
        for place, count in zip(*np.unique(bins, return_counts=True), strict=True):
            self._counts[int(place)] += int(count)

    def merge(self, other: "Samples") -> None:
        """Count the samples that another has counted."""
        self._counts.update(other._counts)

    def share_below(self, magnitude: float) -> float:
        """The share of samples that do not reach a magnitude, to nine percent of it; 0 of fewer than two samples."""
        total = sum(self._counts.values())
        if total < 2 or magnitude <= 0:
            return 0.0
        edge = np.floor(_BINS_OF_AN_OCTAVE * np.log2(magnitude))
        return sum(count for place, count in self._counts.items() if place < edge) / total

    def median(self) -> float:
        """What half of the samples reach at most, to nine percent."""
        seen, half = 0, sum(self._counts.values()) / 2
        for place in sorted(self._counts):
            seen += self._counts[place]
            if seen >= half:
                return float(2 ** ((place + 0.5) / _BINS_OF_AN_OCTAVE))
        return 0.0
