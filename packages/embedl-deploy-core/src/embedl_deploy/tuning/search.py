"""A search over decisions: from the best start, one after the other is changed, as long as that helps."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from embedl_deploy.engine import Device, estimate
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.sensitivity.evaluation import number_from
from embedl_deploy.tuning.accuracy import key_of, worse
from embedl_deploy.tuning.objectives import Objective
from embedl_deploy.tuning.report import Trial
from embedl_deploy.tuning.subject import Subject
from embedl_deploy.tuning.units import Points


@dataclass(frozen=True)
class Best:
    """The best candidate so far.

    Attributes:
        subject: The plan's model.
        points: Its points that are quantized.
        trial: What was noted about it.
    """

    subject: Subject
    points: Points
    trial: Trial


@dataclass
class Search:
    """Tries candidates.

    Attributes:
        objective: What becomes smaller.
        keep: The accuracy that has to hold.
        deadline: When to stop, on :func:`time.monotonic`'s clock.
        devices: The devices that run times are estimated for, as far as they are of the engine's target.
        trials: What was tried.
        best: The best of it.
        finished: Whether nothing was left out for want of time.
        candidates: Those that were built.
        last: What was timed once more at last, by ``subject.key``.
    """

    objective: Objective
    keep: float
    deadline: float
    devices: Sequence[Device] = ()
    trials: list[Trial] = field(default_factory=list)
    best: Best | None = None
    finished: bool = True
    candidates: list[Best] = field(default_factory=list)
    last: set[str] = field(default_factory=set)

    def in_time(self, seconds: float = 0.0) -> bool:
        """Whether there is time left for what takes some seconds; if not, the search is not finished."""
        if time.monotonic() + seconds < self.deadline:
            return True
        self.finished = False
        return False

    def try_starts(self, subject: Subject) -> None:
        """Try the starts of a model that were not tried yet, whatever the time."""
        for name, points in subject.starts().items():
            if math.isnan(subject.value(points)[0]):
                self.attempt(subject, name, points, start=True)

    def require_best(self) -> Best:
        """The best candidate.

        Raises:
            CompileError: The compiler built none.
            InputError: None keeps the accuracy.
        """
        if self.best is not None:
            return self.best
        if any(trial.totals for trial in self.trials):
            raise InputError(
                "The objective is infinite for every engine that was built, so there is none to choose. Return a "
                "finite number for those that may be chosen."
            )
        if any(not worse(trial.accuracy, self.keep) for trial in self.trials):
            raise CompileError("The compiler refuses the model in float and quantized, so there is nothing to tune.")
        most = max(trial.accuracy for trial in self.trials)
        raise InputError(f"keep is {self.keep:.6g}, and no start is better than {most:.6g}. Ask for less.")

    def improve(self, subject: Subject, share: float) -> None:
        """Change the starts, one unit after the other, each start in its turn, so that none takes all the time.

        Args:
            subject: The model.
            share: The share of the time that is left, to be spent on this.
        """
        now = time.monotonic()
        until = now + max(self.deadline - now, 0.0) * share
        starts = sorted(subject.starts().items(), key=lambda item: subject.value(item[1])[0])
        turns = deque(self._improved(subject, name, start) for name, start in starts)
        while turns and time.monotonic() < until:
            turn = turns.popleft()
            if next(turn, None) is not None:
                turns.append(turn)
        self.finished = self.finished and not turns

    def _improved(self, subject: Subject, name: str, start: Points) -> Iterator[Points]:
        feasible = self._feasible(subject, start)
        if feasible != start and math.isnan(subject.value(feasible)[0]):
            self.attempt(subject, f"{name}, less until the accuracy holds", feasible)
        yield from self.descend(subject, feasible)

    def descend(self, subject: Subject, start: Points, prefix: str = "") -> Iterator[Points]:
        """Change one unit after the other, from a candidate that was tried, until nothing helps any more.

        Args:
            subject: The model.
            start: The candidate.
            prefix: For the names of trials.

        Yields:
            Where it is, after each unit that was not known yet.
        """
        here, helped = start, True
        while helped:
            helped = False
            for unit in subject.by_bytes(here):
                unknown = False
                for how, choice in unit.choices.items():
                    candidate = unit.switched(here, choice)
                    if not math.isnan(subject.value(candidate)[0]) or not subject.is_consistent(candidate):
                        continue
                    if not self.in_time():
                        continue
                    unknown = True
                    self.attempt(subject, f"{prefix}{unit.name} {how}", candidate)
                    if subject.value(candidate)[0] < subject.value(here)[0] * (1 - self.objective.least_gain):
                        here, helped = candidate, True
                if unknown:
                    yield here

    def attempt(self, subject: Subject, name: str, points: Points, *, start: bool = False) -> bool:
        """Measure and build a candidate; whether it is the best so far."""
        accuracy = subject.accuracy(points)
        note: Callable[..., Trial] = partial(self._note, subject, name, points, start=start)
        if worse(accuracy, self.keep):
            note(math.inf, accuracy, f"accuracy {accuracy:.4g}, below {self.keep:.4g}: not built")
            return False
        built = subject.engine(points)
        if built is None:
            note(math.inf, accuracy, "the compiler refuses it")
            return False
        report = built.report
        objective = number_from(self.objective(built), "objective", f"the engine of {name!r}", infinite=True)
        if objective == -math.inf:
            raise InputError(
                f"objective gave -inf for the engine of {name!r}; expected a number, of which less is better, or inf "
                "for an engine that must not be chosen."
            )
        if objective == math.inf:
            note(objective, accuracy, "its objective is infinite", totals=report.totals)
            return False
        said = f"{objective:.6g} at accuracy {accuracy:.4g}"
        better = self._is_best(Best(subject, points, Trial(name, objective, accuracy, len(points), True, said)))
        outcome = said if better else f"{said}, no better"
        devices = [device for device in self.devices if device.target == report.target]
        estimates = {device.name: estimate(report, device).seconds for device in devices}
        trial = note(objective, accuracy, outcome, accepted=better, totals=report.totals, estimates=estimates)
        self.candidates.append(Best(subject, points, trial))
        if better:
            self.best = self.candidates[-1]
        elif self.objective.is_time:
            self.best = self.best_of_times(self.candidates)
        return better

    def _is_best(self, built: Best) -> bool:
        """Whether a candidate that was just built is the best so far."""
        if self.best is None:
            return True
        if self.objective.is_time:
            return self.best_of_times([*self.candidates, built]) is built
        return built.trial.objective < self.best.trial.objective * (1 - self.objective.least_gain)

    def best_of_times(self, among: Sequence[Best]) -> Best:
        """The most accurate of those that are as fast as the fastest; among equals the one that was there first.

        Times vary: the fastest beats only those that take longer by more than that.
        """
        fastest = min(each.trial.objective for each in among)
        least = 1 - self.objective.least_gain
        near = [each for each in among if each.trial.objective * least <= fastest]
        return max(near, key=lambda each: each.trial.accuracy)

    def _note(
        self, subject: Subject, name: str, points: Points, objective: float, accuracy: float, outcome: str, **more: Any
    ) -> Trial:
        subject.values[key_of(points)] = (objective, accuracy)
        more = {"accepted": False, **more}
        trial = Trial(name, objective, accuracy, len(points), outcome=outcome, **more)
        self.trials.append(trial)
        return trial

    def _feasible(self, subject: Subject, start: Points) -> Points:
        """A start without the units that cost most accuracy, as many of them as it takes."""
        if not worse(subject.accuracy(start), self.keep):
            return start
        without = {unit.name: subject.accuracy(start - unit.every) for unit in subject.units if unit.every & start}
        for unit in sorted(subject.units, key=lambda unit: -without.get(unit.name, -math.inf)):
            start = start - unit.every
            if not worse(subject.accuracy(start), self.keep):
                break
        return start

    def why_in_float(self, best: Best, name: str) -> dict[PointReport, str]:
        """Why each point that could be quantized, in its own format, stays in float.

        Args:
            best: The candidate.
            name: What the objective is called.
        """
        reasons: dict[PointReport, str] = {}
        for unit in best.subject.units:
            why = self._why_not(best, unit.switched(best.points, unit.points), name)
            if not unit.every & best.points:
                reasons.update(dict.fromkeys(unit.points, f"tuned: {why}"))
        return reasons

    def _why_not(self, best: Best, points: Points, name: str) -> str:
        objective, accuracy = best.subject.value(points)
        if math.isnan(objective):
            return "not tried in time"
        if worse(accuracy, self.keep):
            return f"accuracy {accuracy:.4g} with it, below {self.keep:.4g}"
        if math.isinf(objective):
            return "the compiler refuses it, or its objective is infinite"
        if self.last and best.subject.key(points) not in self.last:
            return f"{name} {objective:.6g} with it, not among the fastest"
        return f"{name} {objective:.6g} with it, {best.trial.objective:.6g} without"
