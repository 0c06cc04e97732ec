"""How long the runs of an engine take."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from embedl_deploy.errors import InputError
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class Timing:
    """The times of an engine's runs.

    Attributes:
        seconds: Of each run, in order.
        threads: Threads that it ran with; ``None`` where the hardware has none to choose.

    Raises:
        InputError: There is no run, a time is no positive number, or ``threads`` is not positive.
    """

    seconds: tuple[float, ...]
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds:
            raise InputError("A Timing needs the time of at least one run.")
        if not all(0 < each < math.inf for each in self.seconds):
            raise InputError("A Timing needs a positive number of seconds for each run.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads!r}; expected a positive number.")

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.seconds)

    @property
    def median(self) -> float:
        """In seconds; what a run usually takes, whatever disturbed some."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """A quarter of the runs took no longer than the first, and a quarter no less than the second; in seconds."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    @property
    def spread(self) -> float:
        """How far the quartiles are apart, as a share of the median: 0.1 for runs that mostly agree within 10 %."""
        low, high = self.quartiles
        return (high - low) / self.median

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; times in seconds."""
        low, high = self.quartiles
        figures = {"median": self.median, "low_quartile": low, "high_quartile": high, "spread": self.spread}
        return {**figures, "runs": self.runs, "threads": self.threads}

    def __str__(self) -> str:
        low, high = (f"{each * 1e3:.4g}" for each in self.quartiles)
        used = "" if self.threads is None else f" with {self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{self.median * 1e3:.4g} ms{used} (half of {self.runs} runs took {low} to {high} ms)"
