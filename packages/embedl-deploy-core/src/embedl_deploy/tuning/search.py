"""A search over units: from the best start, one unit after the other is switched, as long as that helps."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedl_deploy.engine import EngineReport
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.sensitivity.evaluation import number_from
from embedl_deploy.tuning.candidates import Accuracy, Builds, key_of, worse
from embedl_deploy.tuning.objectives import Objective
from embedl_deploy.tuning.report import Trial
from embedl_deploy.tuning.units import Points, Unit, flipped

#: A change that gains less than this share of the objective is not worth a decision.
_LEAST_GAIN = 1e-3


@dataclass
class Search:
    """Tries candidates.

    Attributes:
        units: What is switched.
        accuracy: Measures a candidate.
        builds: Builds its engine.
        objective: What becomes smaller.
        keep: The accuracy that has to hold.
        deadline: When to stop, on :func:`time.monotonic`'s clock.
        trials: What was tried.
        finished: Whether nothing is left to try.
    """

    units: Sequence[Unit]
    accuracy: Accuracy
    builds: Builds
    objective: Objective
    keep: float
    deadline: float
    trials: list[Trial] = field(default_factory=list)
    finished: bool = False
    _values: dict[str, tuple[float, float]] = field(default_factory=dict)

    def run(self, starts: Mapping[str, Points]) -> tuple[Points, Trial]:
        """The best candidate, and its trial.

        Args:
            starts: Candidates to begin with, by name; all of them are tried, whatever the time.

        Raises:
            CompileError: The compiler builds none of the starts.
            InputError: Not even the start with the fewest points keeps the accuracy.
        """
        best: Points | None = None
        for name, points in starts.items():
            if self._try(name, points, best):
                best = points
        if best is None:
            if any(trial.totals for trial in self.trials):
                raise InputError(
                    "The objective is infinite for every engine that was built, so there is none to choose. Return a "
                    "finite number for those that may be chosen."
                )
            if any(not worse(trial.accuracy, self.keep) for trial in self.trials):
                raise CompileError(
                    "The compiler refuses the model in float16 and quantized, so there is nothing to tune."
                )
            most = max(trial.accuracy for trial in self.trials)
            raise InputError(f"keep is {self.keep:.6g}, and no start is better than {most:.6g}. Ask for less.")
        for name, start in sorted(starts.items(), key=lambda item: self._value(item[1])[0]):
            feasible = self._feasible(start)
            if feasible != start and self._try(f"{name}, less until the accuracy holds", feasible, best):
                best = feasible
            best = self._descend(feasible, best)
        self.finished = time.monotonic() < self.deadline
        chosen = next(trial for trial in reversed(self.trials) if trial.accepted)
        return best, chosen

    def why_in_float(self, best: Points, name: str) -> dict[PointReport, str]:
        """Why each point of the units that are not quantized stays in float.

        Args:
            best: The points that are quantized.
            name: What the objective is called.
        """
        reasons: dict[PointReport, str] = {}
        least = self._value(best)[0]
        for unit in self.units:
            objective, accuracy = self._values.get(key_of(best | unit.points), (math.nan, math.nan))
            if math.isnan(objective):
                why = "not tried in time"
            elif worse(accuracy, self.keep):
                why = f"accuracy {accuracy:.4g} with it, below {self.keep:.4g}"
            elif math.isinf(objective):
                why = "the compiler refuses it, or its objective is infinite"
            else:
                why = f"{name} {objective:.6g} with it, {least:.6g} without"
            reasons.update(dict.fromkeys(unit.points - best, f"tuned: {why}"))
        return reasons

    def _feasible(self, start: Points) -> Points:
        """A start without the units that cost most accuracy, as many of them as it takes."""
        if not worse(self.accuracy(start), self.keep):
            return start
        without = {unit.name: self.accuracy(start - unit.points) for unit in self.units if unit.points & start}
        for unit in sorted(self.units, key=lambda unit: -without.get(unit.name, -math.inf)):
            start = start - unit.points
            if not worse(self.accuracy(start), self.keep):
                break
        return start

    def _descend(self, start: Points, best: Points) -> Points:
        """Switch units from a start until nothing helps any more."""
        here, helped = start, key_of(start) in self._values
        while helped and time.monotonic() < self.deadline:
            helped = False
            for unit in self._by_bytes(here):
                candidate = flipped(here, unit)
                if time.monotonic() >= self.deadline or key_of(candidate) in self._values:
                    continue
                switched = "in float" if unit.points <= here else "quantized"
                if self._try(f"{unit.name} {switched}", candidate, best):
                    best = candidate
                if self._value(candidate)[0] < self._value(here)[0] * (1 - _LEAST_GAIN):
                    here, helped = candidate, True
        return best

    def _by_bytes(self, points: Points) -> list[Unit]:
        """The units, those whose modules move most in the engine first."""
        report = self.builds(points)
        if report is None:
            return list(self.units)
        return sorted(self.units, key=lambda unit: -_bytes_of(unit, report))

    def _value(self, points: Points) -> tuple[float, float]:
        return self._values[key_of(points)]

    def _try(self, name: str, points: Points, best: Points | None) -> bool:
        """Measure and build a candidate; whether it is the best so far."""
        accuracy = self.accuracy(points)
        if worse(accuracy, self.keep):
            self._note(name, points, math.inf, accuracy, f"accuracy {accuracy:.4g}, below {self.keep:.4g}: not built")
            return False
        report = self.builds(points)
        if report is None:
            self._note(name, points, math.inf, accuracy, "the compiler refuses it")
            return False
        objective = number_from(self.objective(report), "objective", f"the engine of {name!r}", infinite=True)
        if objective == -math.inf:
            raise InputError(
                f"objective gave -inf for the engine of {name!r}; expected a number, of which less is better, or inf "
                "for an engine that must not be chosen."
            )
        if objective == math.inf:
            self._note(name, points, objective, accuracy, "its objective is infinite", totals=report.totals)
            return False
        least = math.inf if best is None else self._value(best)[0]
        better = best is None or objective < least * (1 - _LEAST_GAIN)
        said = f"{objective:.6g} at accuracy {accuracy:.4g}"
        outcome = said if better else f"{said}, no better"
        self._note(name, points, objective, accuracy, outcome, accepted=better, totals=report.totals)
        return better

    def _note(self, name: str, points: Points, objective: float, accuracy: float, outcome: str, **more: Any) -> None:
        self._values[key_of(points)] = (objective, accuracy)
        more = {"accepted": False, **more}
        self.trials.append(Trial(name, objective, accuracy, len(points), outcome=outcome, **more))


def _bytes_of(unit: Unit, report: EngineReport) -> int:
    paths = {point.path for point in unit.points}
    return sum(layer.bytes_read + layer.bytes_written for path in paths for layer in report.layers_of(path))
