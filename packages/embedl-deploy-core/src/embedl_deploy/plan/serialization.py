"""Plans as JSON: to be reviewed, kept under version control, and applied again to the same model."""

import json
from typing import Any

from embedl_deploy.errors import PlanError
from embedl_deploy.json_text import NotJsonError, parse_json
from embedl_deploy.patterns import PatternMatch
from embedl_deploy.patterns.causes import SWITCHED_OFF, Why
from embedl_deploy.plan.state import PlanState
from embedl_deploy.plan.why_not import no_match_at

FORMAT = "embedl-deploy/plan"
VERSION = 1


def plan_to_json(plan: PlanState) -> str:
    """The plan's decisions, with what is needed to tell whether they fit a model."""
    return json.dumps(
        {
            "format": FORMAT,
            "version": VERSION,
            "model": {"class": plan.model_name, "fingerprint": plan.fingerprint},
            "backend": None if plan.backend is None else plan.backend.name,
            "patterns": [pattern.name for pattern in plan.patterns],
            "matches": [
                {
                    "node": node,
                    "pattern": name,
                    "stage": match.stage,
                    "nodes": list(match.node_names),
                    "apply": match.apply,
                    **_cause(match),
                }
                for node, row in plan.matches.items()
                for name, match in row.items()
            ],
            "declined": [
                {"pattern": d.pattern_name, "nodes": list(d.node_names), "reason": d.reason} for d in plan.declined
            ],
        },
        indent=2,
        ensure_ascii=False,
    )


def _cause(match: PatternMatch) -> dict[str, str | None]:
    """Why it is as it is, in words and as a code, also where only its flag was set, by hand."""
    cause = match.cause
    if match.apply and (match.why is Why.OVERLAPS or match.why is Why.SWITCHED_OFF):
        cause = None
    elif not match.apply and cause is None:
        cause = SWITCHED_OFF
    return {"reason": "" if cause is None else str(cause), "cause": None if cause is None else cause.why.value}


def read_plan_json(text: str) -> dict[str, Any]:
    """Read a plan's JSON text and check its form.

    Raises:
        PlanError: It is not JSON, not a plan, or a plan of another version.
    """
    try:
        data = parse_json(text)
    except (TypeError, NotJsonError) as error:
        raise PlanError(f"The plan is not valid JSON: {error}. Pass the text that plan.to_json() gave.") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise PlanError(
            f'The JSON is not a plan: expected an object with "format": {FORMAT!r}. Pass the text of plan.to_json().'
        )
    if data.get("version") != VERSION:
        raise PlanError(f"The plan has version {data.get('version')!r}; this release reads version {VERSION}.")
    if not isinstance(data.get("model"), dict) or not isinstance(data["model"].get("fingerprint"), str):
        raise PlanError('The plan\'s "model" must be an object with class and fingerprint.')
    matches = data.get("matches")
    if not isinstance(matches, list) or not all(map(_is_match, matches)):
        raise PlanError('The plan\'s "matches" must be a list of objects with node, pattern, nodes and apply.')
    return data


def _is_match(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("node"), str)
        and isinstance(entry.get("pattern"), str)
        and isinstance(entry.get("nodes"), list)
        and isinstance(entry.get("apply"), bool)
    )


def apply_json_decisions(plan: PlanState, data: dict[str, Any]) -> None:
    """Take over the decisions of a plan's JSON into a fresh plan of the same model.

    Raises:
        PlanError: They are of another model, or of other patterns.
    """
    model = data["model"]
    if model["fingerprint"] != plan.fingerprint:
        raise PlanError(
            f"The plan was made from another model: a {model.get('class')} with fingerprint "
            f"{model['fingerprint'][:12]}…, but this {plan.model_name} has "
            f"{plan.fingerprint[:12]}…. The architecture, settings of layers or the capture method differ: make a new "
            "plan."
        )
    names = [pattern.name for pattern in plan.patterns]
    if data.get("patterns") != names:
        raise PlanError(
            f"The plan was made with the patterns {data.get('patterns')}, but the patterns are now {names}. Make a new "
            "plan."
        )
    for entry in data["matches"]:
        match = plan.matches.get(entry["node"], {}).get(entry["pattern"])
        if match is None:
            raise PlanError(no_match_at(plan, entry["node"], entry["pattern"]))
        if list(match.node_names) != entry["nodes"]:
            raise PlanError(
                f"The plan's match of {entry['pattern']!r} at {entry['node']!r} covers {entry['nodes']}, "
                f"but here it covers {list(match.node_names)}. Make a new plan."
            )
        if match.apply != entry["apply"]:
            match.apply = entry["apply"]
            match.cause = None if match.apply else SWITCHED_OFF
