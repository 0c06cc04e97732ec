"""Telling reports apart by what they hold, and reading what the page needs of them."""

import typing
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from embedl_deploy.errors import InputError
from embedl_deploy.json_text import finite
from embedl_deploy.page.run import Run
from embedl_deploy.plain_values import value_of
from embedl_deploy.validation.checked import checked


@runtime_checkable
class Report(Protocol):
    """Whatever can say itself in plain values."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        ...


#: What a page is drawn from, and the entries that each part is known by.
PARTS: dict[str, frozenset[str]] = {
    "transformation": frozenset({"applied", "declined"}),
    "quantization": frozenset({"policy", "points"}),
    "sensitivity": frozenset({"metric", "layers"}),
    "engine": frozenset({"compiler", "layers"}),
    "comparison": frozenset({"first", "second", "by_module"}),
    "check": frozenset({"rules_checked", "findings"}),
    "float32": frozenset({"nodes", "sqnr_before"}),
    "frontier": frozenset({"objective", "accuracy", "points"}),
}
_FIELDS = typing.get_type_hints(Run)


@checked
def parts_of(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a page that a command's JSON holds.

    Args:
        plain: What a command printed with ``--json``, ``plan.to_json()``, or the file that ``compile`` writes beside
            an engine.

    Returns:
        By name of the parameter of :func:`write_page`, plain values; empty if none is known.
    """
    own = _part(plain)
    if own:
        return own
    found: dict[str, Any] = {}
    for value in plain.values():
        if isinstance(value, dict):
            found |= _part(value)
    return found


def _part(plain: Mapping[str, Any]) -> dict[str, Any]:
    if plain.get("format") == "embedl-deploy/plan":
        return {"transformation": _of_plan(plain)}
    if {"objective", "measure", "trials"} <= set(plain):
        return {"frontier": _of_search(plain)}
    return next(({name: plain} for name, entries in PARTS.items() if entries <= set(plain)), {})


def _of_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as the transformation that it would be."""
    by_flag: dict[bool, list[Any]] = {True: [], False: []}
    matches = plan.get("matches")
    for match in matches if isinstance(matches, list) else ():
        by_flag[isinstance(match, dict) and match.get("apply") is True].append(match)
    model = plan.get("model")
    named = {"model": model.get("class")} if isinstance(model, dict) else {}
    shared = {"backend": plan.get("backend"), "declined": plan.get("declined")}
    return {"applied": by_flag[True], "skipped": by_flag[False], **named, **shared}


def _of_search(search: Mapping[str, Any]) -> dict[str, Any]:
    """A search's trials as points; those that came to no figure, or an infinite one, are not drawn."""
    listed, best = search.get("trials"), search.get("best")
    trials = [trial for trial in (listed if isinstance(listed, list) else ()) if isinstance(trial, dict)]
    drawn = [trial for trial in trials if None not in (trial.get("objective"), trial.get("accuracy"))]
    points = [
        {
            "objective": trial["objective"],
            "accuracy": trial["accuracy"],
            "decision": _decision(trial),
            "chosen": trial == best,
        }
        for trial in drawn
    ]
    others = [_decision(trial) + (" (chosen)" if trial == best else "") for trial in trials if trial not in drawn]
    measure = search.get("measure")
    accuracy = "SQNR, dB" if measure == "sqnr" else measure
    return {"objective": search.get("objective"), "accuracy": accuracy, "points": points, "not_drawn": others}


def _decision(trial: Mapping[str, Any]) -> str:
    return ": ".join(str(trial[name]) for name in ("name", "outcome") if trial.get(name))


def read_part(name: str, given: Mapping[str, Any] | Report) -> Any:
    """A part of the run, from a report or from plain values.

    Args:
        name: One of :data:`PARTS`.
        given: The report, or what its ``to_dict`` gave.

    Raises:
        InputError: It is something else.
    """
    plain = finite(dict(given) if isinstance(given, Mapping) else given.to_dict())
    plain = parts_of(plain).get(name, plain)
    if not PARTS[name] <= set(plain):
        other = ", ".join(parts_of(plain))
        raise InputError(
            f"{name} has no {', '.join(map(repr, sorted(PARTS[name] - set(plain))))}"
            f"{f'; it looks like what {other} takes' if other else ''}. Pass the report, or what its to_dict() gave."
        )
    kind = typing.get_args(_FIELDS[name])[0]
    try:
        return value_of(kind, plain, name, partly=True)
    except ValueError as error:
        raise InputError(f"The page cannot show {name}: {error}.") from error
