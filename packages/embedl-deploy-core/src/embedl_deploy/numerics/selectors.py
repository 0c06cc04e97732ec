"""Selectors, with which a configuration names modules of a transformed model."""

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any

from torch import fx, nn

from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.graph.module_paths import fits, modules_around, near_names, paths_called, with_containers
from embedl_deploy.numerics.points import QuantPoint

#: A module, a module class, a glob over module paths (``"features.*.conv"``), or a predicate on points. A module or
#: path means all that is inside it as well.
Selector = nn.Module | type[nn.Module] | str | Callable[[QuantPoint], bool]


def selects(selector: Any, point: QuantPoint) -> bool:
    """Whether a selector means the module of a point: that module itself, one around it, or one that it wraps.

    What a module with several weights wraps for another of them does not count for a weight. A part that a module
    wraps is meant by its own path, not by globs.
    """
    if isinstance(selector, str):
        return any(fits(selector, path) for path in _paths(point)) or selector in _inner_paths(point)
    if isinstance(selector, nn.Module):
        return any(part is selector for part in (*point.parts, *modules_around(point.node)))
    if isinstance(selector, type):
        return any(isinstance(part, selector) for part in point.parts)
    return bool(selector(point))


def _paths(point: QuantPoint) -> list[str]:
    """The path of a point's module, and, for one weight of several, those of its operator and of the part around it."""
    weight = point.weight
    if weight is None or weight.name == "weight":
        return [point.path]
    inner = [weight.path, weight.place.rpartition(".")[0]]
    return [point.path, *(f"{point.path}.{path}" for path in inner if path)]


def _inner_paths(point: QuantPoint) -> set[str]:
    """Paths of what the module of a point wraps."""
    parts = set(point.parts)
    return {f"{point.path}.{path}" for path, part in point.module.named_modules() if path and part in parts}


def describe_selector(selector: Any) -> str:
    """A selector in words."""
    if isinstance(selector, str):
        return repr(selector)
    if isinstance(selector, nn.Module):
        return f"this very {type(selector).__name__}"
    return getattr(selector, "__name__", repr(selector))


def require_selection(
    model: fx.GraphModule, points: Iterable[QuantPoint], left_in_float: Iterable[Any], formatted: Iterable[Any]
) -> None:
    """Raise if a path or module is named that means nothing in the model.

    Classes and predicates are rules for any model, and may fit nothing in this one.

    Args:
        model: The transformed model.
        points: Where quantizers could stand in it.
        left_in_float: Selectors of what is to stay in float. What has no point does so anyway.
        formatted: Selectors of what is to have a format of its own, for which there has to be a point.

    Raises:
        QuantizationConfigError: A path or module fits nothing: a slip, or a module of another model.
    """
    points, formatted = list(points), list(formatted)
    with_points = {point.path for point in points}
    known = [path for path in paths_called(model.graph) if not with_points.intersection(with_containers(path)[:-1])]
    for selector in (*left_in_float, *formatted):
        if not isinstance(selector, (str, nn.Module)) or any(selects(selector, point) for point in points):
            continue
        if isinstance(selector, str):
            named = fnmatch.filter(known, selector)
        else:
            named = [path for path, module in model.named_modules() if module is selector and path in known]
        if not named:
            raise QuantizationConfigError(f"QuantConfig selects {_missing(selector, known)}")
        if selector in formatted:
            there = near_names(named[0], with_points, first="Paths with points begin with")
            raise QuantizationConfigError(
                f"QuantConfig.overrides gives a format to {describe_selector(selector)}, but {named[0]!r} has no "
                f"quantization point. {there} Remove it from overrides, or see report.why_not({named[0]!r}) for why no "
                "fusion took it."
            )


def _missing(selector: str | nn.Module, known: Iterable[str]) -> str:
    if isinstance(selector, str):
        there = near_names(selector, known, first="Paths begin with")
        return f"{selector!r}, which matches no module of the transformed model. {there}"
    return (
        f"a {type(selector).__name__} that is not in the transformed model. Take it from there, "
        "result.model.get_submodule('path'), or select it by its path."
    )
