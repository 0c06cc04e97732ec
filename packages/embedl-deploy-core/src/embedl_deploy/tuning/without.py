"""Tries a model's plan without some of its matches."""

import time
from collections.abc import Mapping
from dataclasses import replace

from embedl_deploy.errors import EmbedlDeployError
from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.quantize.api import quantize
from embedl_deploy.tuning.search import Search
from embedl_deploy.tuning.subject import Subject
from embedl_deploy.tuning.units import name_of, place_of
from embedl_deploy.tuning.variants import Key, groups_of, without


def try_without_matches(search: Search, subject: Subject, configs: Mapping[str, QuantConfig]) -> dict[str, str]:
    """Try the best candidate without each group of matches of its plan, and go on from what is better.

    A group makes no difference where the file in float is the same without it, and no point is left that was not
    there: then its points are all that it decides.

    Args:
        search: The search, which has a best candidate of ``subject``.
        subject: The model that the whole plan makes.
        configs: A configuration for each further format.

    Returns:
        What became of each group, by its name.
    """
    outcomes: dict[str, str] = {}
    off: frozenset[Key] = frozenset()
    task = subject.task
    longest = 0.0
    for group in groups_of(subject.result):
        began = time.monotonic()
        if not search.in_time(longest):
            outcomes[group.name] = "kept: not tried in time"
            continue
        best = search.require_best()
        keys = {*off, *group.keys}
        try:
            result = without(subject.result, keys)
            quantized = quantize(result, task.data, replace(task.config, policy=None), progress=task.progress)
            other = Subject(result, quantized, task)
        except EmbedlDeployError as error:
            outcomes[group.name] = f"kept: without it, {str(error).splitlines()[0]}"
            continue
        here, there = ({place_of(p)[:2] for p in each.report.quantized} for each in (best.subject, other))
        if other.digest == best.subject.digest and there <= here:
            outcomes[group.name] = "kept: the compiler gets the same file without it"
        else:
            used = {name_of(point) for point in best.points} & configs.keys()
            if used:
                other.add_formats({name: configs[name] for name in used})
            points = other.translated(best.points)
            better = search.attempt(other, f"without {group.name}", points)
            outcomes[group.name] = ("switched off: " if better else "kept: without it, ") + search.trials[-1].outcome
            if better:
                off = frozenset(keys)
                for _ in search.descend(other, points, f"without {group.name}: "):
                    pass
        longest = max(longest, time.monotonic() - began)
    return outcomes
