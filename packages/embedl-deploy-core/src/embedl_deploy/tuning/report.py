"""What a search tried, and what came out."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.page import render_page
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.tuning.decisions import TunedPolicy
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class Trial:
    """One candidate.

    Attributes:
        name: What it is: ``"float16"`` or another floating-point type, ``"everything"``, the name of a policy, or what
            was changed in another candidate.
        objective: Less is better; infinite where the compiler refused it, or it was not built.
        accuracy: Signal to noise of the outputs in dB, or the user's own measure; more is better.
        quantized: How many points are quantized.
        accepted: Whether the search went on from it.
        outcome: Why, in words.
        start: Whether the search began from it.
        totals: Of the engine: kernels, bytes, size (:attr:`embedl_deploy.engine.EngineReport.totals`); empty where none
            was built.
        estimates: A lower bound of the run time on each of the backend's devices of the target, in seconds, by the
            device's name.
    """

    name: str
    objective: float
    accuracy: float
    quantized: int
    accepted: bool
    outcome: str
    start: bool = False
    totals: Mapping[str, Any] = field(default_factory=dict)
    estimates: Mapping[str, float] = field(default_factory=dict)


@checked
@dataclass(frozen=True)
class TuneResult:
    """The best decisions that were found.

    Attributes:
        policy: Which points are quantized, and how: ``policy.save(path)`` writes it as JSON.
        config: The configuration that quantizes so: ``quantize(result, data, tuned.config)``.
        result: The transformed model, by the best plan: ``quantize(tuned.result, data, tuned.config)``.
        plan: That plan as JSON; :func:`embedl_deploy.load_transformation_plan` reads it.
        rewrites: What became of each group of matches of the plan, and why.
        objective_name: What was made smaller.
        measure: What accuracy is: ``"sqnr"`` or ``"evaluate"``.
        best: The trial that it is.
        trials: Everything that was tried, in order.
        builds: How many engines were built in this call; others were known from the state.
        seconds: How long this call took.
        finished: Whether the search came to its end; otherwise its time was over.
    """

    policy: TunedPolicy
    config: QuantConfig
    result: TransformationResult = field(repr=False, compare=False)
    plan: str = field(repr=False)
    rewrites: Mapping[str, str]
    objective_name: str
    measure: str
    best: Trial
    trials: tuple[Trial, ...]
    builds: int
    seconds: float
    finished: bool

    @property
    def frontier(self) -> tuple[Trial, ...]:
        """The trials that no other is at least as good as in both ways, by objective."""
        found: list[Trial] = []
        for trial in sorted(self.trials, key=lambda each: (each.objective, -each.accuracy)):
            if math.isfinite(trial.objective) and (not found or trial.accuracy > found[-1].accuracy):
                found.append(trial)
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; infinite ones as ``None``."""
        return {
            "objective": self.objective_name,
            "measure": self.measure,
            "best": _plain(asdict(self.best)),
            "trials": [_plain(asdict(trial)) for trial in self.trials],
            "frontier": [trial.name for trial in self.frontier],
            "policy": self.policy.to_dict(),
            "rewrites": dict(self.rewrites),
            "builds": self.builds,
            "seconds": self.seconds,
            "finished": self.finished,
        }

    def to_html(self) -> str:
        """The report as a page that needs nothing else; :func:`embedl_deploy.page.write_page` joins several."""
        return render_page(frontier=self)

    def __str__(self) -> str:
        ended = "" if self.finished else ", the time was over"
        head = (
            f"Tuned for {self.objective_name}: {len(self.trials)} candidates, {self.builds} engines built in "
            f"{self.seconds:.0f} s{ended}"
        )
        rows = [f"  {_marked(trial, self.best)} {trial.name}: {trial.outcome}" for trial in self.trials]
        rewrites = [f"  {name}: {outcome}" for name, outcome in self.rewrites.items()]
        return "\n".join((head, *rows, *(["Rewrites:", *rewrites] if rewrites else [])))


def _marked(trial: Trial, best: Trial) -> str:
    return "*" if trial is best else "+" if trial.accepted else " "


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
