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
        engine = self.load(path)
        pair = [(each, each.fitted(self.inputs)) for each in (self._reference, engine)]
        ratios: list[float] = []
        until = time.monotonic() + _SECONDS
        while len(ratios) < _LEAST or (len(ratios) < _MOST and time.monotonic() < until):
            first, second = (min(each.loaded.time(inputs, _RUNS, _SECONDS / 2 / _MOST)) for each, inputs in pair)
            ratios.append(second / first)
        return statistics.median(ratios) * self.seconds
