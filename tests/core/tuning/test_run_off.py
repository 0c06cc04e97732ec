"""The fastest candidates of a search take turns at last: what was timed in a lucky moment is not chosen."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from embedl_deploy.compiling import Engine
from embedl_deploy.tuning.clock import Clock
from embedl_deploy.tuning.objectives import Objective
from embedl_deploy.tuning.report import Trial
from embedl_deploy.tuning.run_off import run_off
from embedl_deploy.tuning.search import Best, Search
from support.running_engines import INPUTS, Adding


@dataclass
class Builds:
    """Knows what engines take when they are timed together."""

    true: dict[str, float]
    asked: list[list[str]] = field(default_factory=list)

    def timed_together(self, keys: list[str], makers: list[Any]) -> list[float]:
        assert [make() for make in makers] == [f"file of {key}" for key in keys]
        self.asked.append(keys)
        return [self.true[key] for key in keys]


@dataclass(eq=False)
class Subject:
    """Has candidates that are known by their points."""

    builds: Builds
    values: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def task(self) -> Any:
        return SimpleNamespace(builds=self.builds)

    def key(self, points: frozenset[Any]) -> str:
        return "".join(sorted(points))

    def file(self, points: frozenset[Any]) -> str:
        return f"file of {self.key(points)}"


def search(first: dict[str, float], true: dict[str, float], starts: str, accuracy: dict[str, float]) -> Search:
    """A search with candidates of one letter each, by the times that were measured first."""
    subject: Any = Subject(Builds(true))
    made = Search(Objective("latency", None), -math.inf, math.inf)
    for name, seconds in first.items():
        trial = Trial(name, seconds, accuracy[name], 1, accepted=False, outcome="timed", start=name in starts)
        made.trials.append(trial)
        made.candidates.append(Best(subject, frozenset(name), trial))
    made.best = made.best_of_times(made.candidates)
    return made


def test_luck_does_not_win(monkeypatch):
    monkeypatch.setattr("embedl_deploy.tuning.run_off.key_of", lambda points: "".join(points))
    accuracy = dict.fromkeys("abcde", 30.0)
    made = search(
        {"a": 1.0, "b": 0.9, "c": 0.7, "d": 0.8, "e": 0.75}, {"b": 0.85, "c": 0.95, "d": 0.9, "e": 0.96}, "ab", accuracy
    )
    assert made.best is not None and made.best.trial.name == "c"
    run_off(made)
    subject: Any = made.best.subject
    assert subject.builds.asked == [["c", "e", "d", "b"]]  # the three fastest, and the fastest start
    assert made.best.trial.name == "b"
    assert made.best.trial in made.trials
    assert [trial.objective for trial in made.trials] == [1.0, 0.85, 0.95, 0.9, 0.96]
    assert subject.values == {"b": (0.85, 30.0), "c": (0.95, 30.0), "d": (0.9, 30.0), "e": (0.96, 30.0)}


def test_of_equals_the_most_accurate_is_the_best(monkeypatch):
    monkeypatch.setattr("embedl_deploy.tuning.run_off.key_of", lambda points: "".join(points))
    made = search({"a": 0.5, "b": 0.8}, {"a": 0.799, "b": 0.8}, "ab", {"a": 20.0, "b": 30.0})
    run_off(made)
    assert made.best is not None and made.best.trial.name == "b"


def test_a_single_candidate_is_not_timed_again():
    made = search({"a": 0.5}, {}, "a", {"a": 20.0})
    run_off(made)
    assert made.best is not None and made.best.trial.objective == 0.5


def test_all_take_part_in_each_turn(tmp_path):
    times = {"reference": (2.0,), "one": (1.0, 9.0, 9.0), "two": (1.5,)}
    log: list[str] = []

    def load(path: Any) -> Engine:
        return Engine(path, Adding(log, path.name, times[path.name]))

    clock = Clock(load, INPUTS)
    clock.start(tmp_path / "reference")
    log.clear()
    found = clock.measure_together([tmp_path / "one", tmp_path / "two"])
    # of each turn the fastest run counts: of "one" 1 s in two of three turns
    assert found == [1.0, 1.5]
    assert log[:6] == [f"time {name}" for name in (*times, *times)]
