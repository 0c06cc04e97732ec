"""Building a replacement from the modules that a match found."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import fx, nn

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.patterns.matches import ForkMatch, TreeMatch, WildcardMatch
from embedl_deploy.patterns.tree import CompiledFork, CompiledTree, CompiledWildcard


def graft_of(pattern: object) -> Callable[..., nn.Module] | None:
    """The pattern's graft, a plain function included, without binding it as a method."""
    graft = inspect.getattr_static(pattern, "graft")
    return graft.__func__ if isinstance(graft, (staticmethod, classmethod)) else graft


def check_graft_arguments(name: str, graft: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Check that a graft can be called with that many arguments.

    Raises:
        PatternError: It cannot.
    """
    problem = _binding_problem(graft, len(arguments))
    if problem is not None:
        raise PatternError(f"Pattern {name!r}: {problem}")


@lru_cache(maxsize=1024)
def _binding_problem(graft: Callable[..., Any], count: int) -> str | None:
    try:
        signature = inspect.signature(graft)
    except ValueError:
        return None  # a built-in without a signature: the call itself will tell
    try:
        signature.bind(*(None,) * count)
    except TypeError as error:
        return (
            f"graft {getattr(graft, '__name__', repr(graft))}{signature} does not fit the tree, which gives {count} "
            f"argument(s), one per matched module or wildcard: {error}. Change the constructor or define replace()."
        )
    return None


def collect_modules(tree: CompiledTree, match: TreeMatch) -> tuple[Any, ...]:
    """The modules that a match gives to a graft: nested branches first, then the trunk, in tree order.

    An optional element gives its module or ``None``, an unlimited wildcard a tuple; functions give nothing. A fork
    whose branches may come in any order gives that order, behind its branches.
    """
    collected: list[Any] = []
    for element, placement in zip(tree.elements, match.placements, strict=True):
        if isinstance(element, CompiledWildcard) and isinstance(placement, WildcardMatch):
            modules = tuple(get_module(node) for node in placement.nodes)
            collected.append((modules[0] if modules else None) if element.max_count == 1 else modules)
        elif isinstance(element, CompiledFork) and isinstance(placement, ForkMatch):
            for branch, branch_match in zip(element.branches, placement.branches, strict=True):
                collected.extend(collect_modules(branch, branch_match))
            if element.any_order:
                collected.append(placement.operands)
            if element.join.modules != 0 and (module := get_module(placement.node)) is not None:
                collected.append(module)
        elif (
            not isinstance(element, (CompiledWildcard, CompiledFork))
            and isinstance(placement, fx.Node)
            and element.modules != 0
            and (module := get_module(placement)) is not None
        ):
            collected.append(module)
    return tuple(collected)
