"""Replaces a match with the module that the pattern's graft builds."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from torch import fx, nn

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.lookup import get_module, submodule
from embedl_deploy.graph.operators import operation
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.replacement import call_module_there, graph_module_of, replace_match, replace_tree
from embedl_deploy.patterns.tree import CompiledFork, CompiledTree, CompiledWildcard
from embedl_deploy.patterns.tree_match import ForkMatch, TreeMatch, WildcardMatch

#: Grafts made so far in each graph module: what they were made from, where they live, the module.
_grafted: WeakKeyDictionary[fx.GraphModule, dict[Any, tuple[str, nn.Module]]] = WeakKeyDictionary()


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
    whose branches may come in any order gives that order, after its branches.
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


def graft_match(pattern_match: PatternMatch) -> list[fx.Node]:
    """Replace a match by the module that its pattern's graft makes of the matched modules.

    Where the very same modules are called again, as in a block that is used twice, the same graft is called again.

    Raises:
        PatternError: The graft does not take these modules, or gives no module.
    """
    pattern = pattern_match.pattern
    graft = graft_of(pattern)
    if graft is None:
        raise PatternError(f"Pattern {pattern.name!r} declares neither graft nor replace(). Declare one of them.")
    modules = collect_modules(pattern.compiled_tree(), pattern_match.tree_match)
    known = _grafted.setdefault(graph_module_of(pattern_match), {})
    orders = [part for part in modules if isinstance(part, tuple) and all(isinstance(each, int) for each in part)]
    key = (graft, *map(_call_key, pattern_match.nodes), *orders)
    reusable = any(node.op == "call_module" for node in pattern_match.nodes)
    path, module = known.get(key, ("", None))
    if reusable and module is not None and _lives_at(graph_module_of(pattern_match), path, module):
        node = call_module_there(pattern_match, path, pattern_match.tree_match.call_arguments())
        replace_match(pattern_match, node)
        return [node]
    check_graft_arguments(pattern.name, graft, modules)
    module = graft(*modules)
    if not isinstance(module, nn.Module):
        raise PatternError(f"Pattern {pattern.name!r}: the graft gave {module!r}; expected a module.")
    nodes = replace_tree(pattern_match, [module])
    known[key] = (str(nodes[0].target), module)
    return nodes


def _call_key(node: fx.Node) -> Any:
    """What makes two calls the same: the module called, or the operation with the settings it is called with."""
    module = get_module(node)
    if node.op == "call_module" or module is None:
        return module if node.op == "call_module" else operation(node)
    tensors = tuple(id(t) for t in (*module.parameters(), *module.buffers()))
    return type(module), module.extra_repr(), tensors


def _lives_at(graph_module: fx.GraphModule, path: str, module: nn.Module) -> bool:
    try:
        return submodule(graph_module, path) is module
    except AttributeError:
        return False
