"""What is rewritten of a model, named so that it can be compared whatever captured the model."""

import re
from typing import Any

from torch import nn

from embedl_deploy import TransformationResult, transform
from zoo.member import Made

#: What is rewritten: the stage, the pattern, and the model's own modules that it takes.
Rewrites = list[tuple[str, ...]]
#: torch.export has answered how many dimensions there are; torch.fx has left the question in the graph.
ONLY_SYMBOLIC = frozenset({"HoistRankQueryPattern"})


def rewrites_of(model: nn.Module, result: TransformationResult) -> Rewrites:
    """What was applied to a model, in order, and to which of its modules."""
    paths = {path.replace(".", "_") for path, _ in model.named_modules()}
    found: Rewrites = []
    for entry in result.report["applied"]:
        if entry["pattern"] in ONLY_SYMBOLIC:
            continue
        names = (name if name in paths else re.sub(r"_\d+$", "", name) for name in entry["nodes"])
        found.append((entry["stage"], entry["pattern"], *(name for name in names if name in paths)))
    return found


def other_plan(made: Made, result: TransformationResult, **settings: Any) -> str | None:
    """How the plan of a model that torch.fx has captured differs from that through torch.export, if it does."""
    if result.report["capture"] != "symbolic":
        return None
    exported = transform(made.model, made.args, kwargs=made.kwargs, trace="export", **settings)
    ways = rewrites_of(made.model, result), rewrites_of(made.model, exported)
    first = next((pair for pair in zip(*ways, strict=False) if pair[0] != pair[1]), None)
    if first is not None:
        return f"{' '.join(first[0])} through torch.fx is {' '.join(first[1])} through torch.export"
    if len(ways[0]) != len(ways[1]):
        return f"{len(ways[0])} rewrites through torch.fx are {len(ways[1])} through torch.export"
    return None
