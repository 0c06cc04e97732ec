"""How long the runs of an engine take."""

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

    Raises:
        InputError: There is none.
    """

    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.seconds:
            raise InputError("A Timing needs the time of at least one run.")

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; times in seconds."""
        low, high = self.quartiles
        return {"median": self.median, "low_quartile": low, "high_quartile": high, "runs": len(self.seconds)}

    def __str__(self) -> str:
        low, high = (f"{each * 1e3:.4g}" for each in self.quartiles)
        return f"{self.median * 1e3:.4g} ms (half of {len(self.seconds)} runs took {low} to {high} ms)"
