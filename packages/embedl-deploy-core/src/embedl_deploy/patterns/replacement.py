"""Replaces a match with modules."""

import inspect
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from torch import fx, nn

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.edit import add_module, erase, inherit_training
from embedl_deploy.graph.expected import expected_of, with_inputs
from embedl_deploy.graph.lookup import get_module, owner
from embedl_deploy.graph.placement import Placement, note_expected, note_placement
from embedl_deploy.graph.uses import target_uses
from embedl_deploy.modules.base import ConvertedModule, FusedModule
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.paths import claim_path, home_path
from embedl_deploy.validation.checked import checked

#: ``node.meta`` entry: names of the nodes, as captured, that a node stands for.
SOURCES = "embedl_deploy.sources"


@checked
def sources_of(node: fx.Node) -> tuple[str, ...]:
    """Names of the nodes of the captured graph that ``node`` stands for; its own name if it was never rewritten."""
    return tuple(node.meta.get(SOURCES, (node.name,)))


def graph_module_of(match: PatternMatch) -> fx.GraphModule:
    """The graph module that a match is in.

    Raises:
        PatternError: The graph has another owner.
    """
    module = owner(match.nodes[0])
    if not isinstance(module, fx.GraphModule):
        raise PatternError(f"{match!r}: the graph's owner is a {type(module).__name__}, expected a GraphModule.")
    return module


@checked
def insert_call(
    pattern_match: PatternMatch,
    module: nn.Module,
    args: Sequence[Any],
    *,
    path: str | None = None,
    home: fx.Node | None = None,
    owned: Collection[fx.Node] = (),
) -> fx.Node:
    """Insert a call of ``module`` before the last node of a match.

    Args:
        pattern_match: The match that is being replaced.
        module: The module to place; its training flag is set to that of the modules matched.
        args: Positional arguments of the call.
        path: Where to place the module; a number is appended if something lives there.
        home: The matched node whose module's path to take over, if nothing else uses it. By default the first one
            that calls a module. It may be one of ``owned``: then it is the path of the module that holds the tensor.
        owned: Nodes that stand for tensors of the model which the module holds from now on.

    Returns:
        The new node.

    Raises:
        PatternError: ``module`` is a fused or converted module whose ``forward`` does not take that many inputs.
    """
    graph_module = graph_module_of(pattern_match)
    matched = pattern_match.nodes
    if pattern_match.expected is None:  # later the modules of the match may be gone
        pattern_match.expected = expected_of(matched)
    is_ours = isinstance(module, (FusedModule, ConvertedModule))  # not the user's, and no plain one of torch's
    if is_ours:
        _check_inputs(pattern_match, module, args)
    called = [m for n in matched if n.op == "call_module" and (m := get_module(n)) is not None]
    inherit_training(module, called, graph_module.training)
    if path is None:
        if home is None:
            home = next((node for node in matched if get_module(node) is not None), matched[-1])
        path = claim_path(graph_module, home_path(home), module, matched, owned)
    else:
        path = add_module(graph_module, path, module)
    if is_ours:
        pattern = pattern_match.pattern
        note_placement(module, Placement(path, pattern.name, pattern.origin))
    return call_module_there(pattern_match, path, args)


def _check_inputs(match: PatternMatch, module: nn.Module, args: Sequence[Any]) -> None:
    kind: type = type(module)
    problem = _input_problem(kind, len(args))
    if problem is not None:
        shipped = f" (from {match.pattern.origin})" if match.pattern.origin else ""
        given = ", ".join(map(str, args))
        raise PatternError(
            f"Pattern {match.pattern_name!r}{shipped}: {type(module).__name__} does not take what flows into the match "
            f"at {match.node_name!r}, {len(args)} value(s) ({given}): {problem}. Give forward a parameter for each of "
            "them, branches first, in the order of the tree; or define replace()."
        )


@lru_cache(maxsize=1024)
def _input_problem(kind: type, count: int) -> str | None:
    signature = inspect.signature(kind.forward)  # type: ignore[attr-defined]  # it is a module's
    try:
        signature.bind(*(None,) * (count + 1))  # one for self
    except TypeError as error:
        return f"forward{signature}: {error}"
    return None


@checked
def claim_container(pattern_match: PatternMatch, home: fx.Node) -> str:
    """Make room for several modules in place of one: an empty container that takes over its path.

    Args:
        pattern_match: The match that is being replaced.
        home: The matched node whose module's path to take over, if nothing else uses it.

    Returns:
        The container's path; place modules below it with ``insert_call(..., path=f"{container}.name")``.
    """
    container, graph_module = nn.Module(), graph_module_of(pattern_match)
    replaced = get_module(home) if home.op == "call_module" else None
    inherit_training(container, [] if replaced is None else [replaced], graph_module.training)
    return claim_path(graph_module, home_path(home), container, pattern_match.nodes)


def call_module_there(pattern_match: PatternMatch, path: str, args: Sequence[Any]) -> fx.Node:
    """Insert a call of the module at a path where a match ends, with what is known of the matched nodes."""
    last = pattern_match.tree_match.last
    with last.graph.inserting_before(last):
        node = last.graph.create_node("call_module", path, tuple(args))
    target_uses(last.graph).note(path)
    node.meta[SOURCES] = tuple(dict.fromkeys(name for n in pattern_match.nodes for name in sources_of(n)))
    if "stack_trace" in last.meta:
        node.meta["stack_trace"] = last.meta["stack_trace"]
    return node


@checked
def replace_match(pattern_match: PatternMatch, output: fx.Node) -> None:
    """Replace a match by ``output``: redirect all users of its value, and remove the matched nodes.

    ``output`` takes over the recorded shape of that value.
    """
    last = pattern_match.tree_match.last
    for key in ("tensor_meta", "val", "type"):
        if key in last.meta and key not in output.meta:
            output.meta[key] = last.meta[key]
    module = get_module(output) if output.op == "call_module" else None
    if module is not None and pattern_match.expected is not None:
        note_expected(module, with_inputs(pattern_match.expected, output))
    last.replace_all_uses_with(output)
    for node in sorted(pattern_match.nodes, reverse=True):
        erase(node)


@checked
def replace_tree(
    pattern_match: PatternMatch, modules: Sequence[nn.Module], *, home: fx.Node | None = None
) -> list[fx.Node]:
    """Replace a match by a chain of modules.

    The first is called with the match's inputs in tree order, each further one with the result of the one before.

    Args:
        pattern_match: The match to replace.
        modules: One or more modules.
        home: As for :func:`insert_call`.

    Returns:
        The new nodes, in order.

    Raises:
        PatternError: ``modules`` is empty or holds something else.
    """
    if not modules or not all(isinstance(module, nn.Module) for module in modules):
        raise PatternError(f"{pattern_match!r}: replace_tree was given {modules!r}; expected one or more modules.")
    args: Sequence[Any] = pattern_match.tree_match.call_arguments()
    nodes: list[fx.Node] = []
    for module in modules:
        # The first takes over the path of what is replaced; the others come to lie beside it.
        path = str(nodes[0].target) if nodes else None
        nodes.append(insert_call(pattern_match, module, args, path=path, home=home))
        args = (nodes[-1],)
    replace_match(pattern_match, nodes[-1])
    return nodes
