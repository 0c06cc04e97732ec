"""Times engines of candidates so that the machine's moods decide nothing.

What else runs on a machine slows it down for a while, and what the engines of a search are to be compared by is taken
over many minutes. So each takes turns with one engine, the reference. What counts is the median, over the turns, of how
its fastest run compares with the reference's fastest run in the same turn.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from embedl_deploy.compiling import Engine

#: Turns with the reference: at least and at most so many, and in between as many as take so long.
_LEAST, _MOST, _SECONDS = 3, 10, 2.0
#: The same where the last candidates take turns with one another.
_LEAST_AT_LAST, _MOST_AT_LAST, _SECONDS_AT_LAST = 7, 31, 4.0
#: The least runs in a turn, of which the fastest counts.
_RUNS = 2


class Clock:
    """Times engines.

    Args:
        load: Loads an engine, to be run with the threads that the search is about.
        inputs: What the engines are run with, in their order.

    Attributes:
        seconds: What a run of the reference takes; ``None`` as long as there is none.
    """

    def __init__(self, load: Callable[[Path], Engine], inputs: Sequence[torch.Tensor]) -> None:
        self.load, self.inputs = load, inputs
        self.seconds: float | None = None
        self._reference: Engine | None = None

    def start(self, path: Path, seconds: float | None = None) -> float:
        """Take an engine as the reference; the median time of its runs.

        Args:
            path: The engine's file.
            seconds: What it took when it was the reference of an earlier run of the search, so that times of both runs
                are of one measure.

        Raises:
            CompileError: It cannot be run here.
        """
        self._reference = self.load(path)
        measured = self._reference.benchmark(self.inputs, seconds=_SECONDS / 2).median
        self.seconds = measured if seconds is None else seconds
        return self.seconds

    def measure(self, path: Path) -> float:
        """What a run of an engine takes, in seconds; the first becomes the reference, if there is none.

        Raises:
            CompileError: It cannot be run here.
        """
        if self._reference is None or self.seconds is None:
            return self.start(path)
        return self._turns([path], self.seconds, _LEAST, _MOST, _SECONDS)[0]

    def measure_together(self, paths: Sequence[Path]) -> list[float]:
        """What a run of each engine takes, in seconds, from more turns, in which all of them take part.

        Raises:
            CompileError: One cannot be run here.
        """
        if self.seconds is None:
            self.start(paths[0])
        seconds = self.seconds
        assert seconds is not None  # start has set it
        return self._turns(paths, seconds, _LEAST_AT_LAST, _MOST_AT_LAST, _SECONDS_AT_LAST * len(paths))

    def _turns(self, paths: Sequence[Path], reference: float, least: int, most: int, seconds: float) -> list[float]:
        first = self._reference
        assert first is not None  # start has set it
        engines = [(each, each.fitted(self.inputs)) for each in (first, *(self.load(path) for path in paths))]
        ratios: list[list[float]] = [[] for _ in paths]
        until, share = time.monotonic() + seconds, seconds / len(engines) / most
        while len(ratios[0]) < least or (len(ratios[0]) < most and time.monotonic() < until):
            own, *others = (min(each.loaded.time(inputs, _RUNS, share)) for each, inputs in engines)
            for kept, other in zip(ratios, others, strict=True):
                kept.append(other / own)
        return [statistics.median(kept) * reference for kept in ratios]
