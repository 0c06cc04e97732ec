"""Makes a tensor that a graph computes from parameters the weight or bias of a module."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.forms.form import set_tensor
from embedl_deploy.graph.lookup import get_constant
from embedl_deploy.graph.metadata import module_path_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.state_values import made_from, parameters_of, value_of_state
from embedl_deploy.modules.computed import computation_of, set_computed
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.replacement import insert_call
from embedl_deploy.patterns.reshaping import is_shared


def set_from_state(pattern_match: PatternMatch, module: nn.Module, sources: Mapping[str, tuple[Any, ...]]) -> None:
    """Let a new module have tensors of the model, or compute them as the graph does.

    A parameter stays the parameter that it is. What only shows one in another shape becomes a parameter over the same
    memory, if nothing else reads that, the module's other tensors included; any other computation becomes a
    parametrization, trained as it was.

    Args:
        pattern_match: The match that is being replaced.
        module: The new module.
        sources: By name of the module's tensor: a node of which :func:`embedl_deploy.graph.state_values.is_state`
            holds, and maybe a function that is applied to its value, such as a transposition, and its further
            arguments.
    """
    for name, (source, *after) in sources.items():
        beside = [other for label, (other, *_) in sources.items() if label != name]
        _set_one(pattern_match, module, name, source, tuple(after), beside)


def _set_one(
    pattern_match: PatternMatch,
    module: nn.Module,
    name: str,
    source: fx.Node,
    after: tuple[Any, ...],
    beside: Iterable[fx.Node],
) -> None:
    if source.op == "get_attr" and not after:
        set_tensor(module, name, get_constant(source))
        return
    nodes = made_from(source)
    tensors: dict[fx.Node, Any] = {each: get_constant(each) for each in parameters_of(nodes)}
    with torch.no_grad():
        value = value_of_state(source).detach()
        value = after[0](value, *after[1:]) if after else value
    if not tensors:
        set_tensor(module, name, value)  # made of literals
        return
    only = next(iter(tensors.values()))
    others = [get_constant(each) for other in beside for each in parameters_of(made_from(other))]
    if (
        len({id(tensor) for tensor in tensors.values()}) == 1
        and _shows(value, only)
        and not any(_detaches(each) for each in nodes)
        and not any(only is other for other in others)
        and not is_shared(pattern_match, only)
    ):
        set_tensor(module, name, nn.Parameter(value, only.requires_grad) if isinstance(only, nn.Parameter) else value)
        return
    for each in nodes:  # sizes, and what is made of literals, are values
        known = value_of_state(each)
        if each not in tensors and (not _holds_tensors(known) or not parameters_of(made_from(each))):
            tensors[each] = known
    set_computed(module, name, *computation_of(nodes, source, tensors, after))


def insert_at_state(
    pattern_match: PatternMatch, module: nn.Module, x: fx.Node, state: list[fx.Node], name: str
) -> fx.Node:
    """Call a module of ``x`` at the path of the one that holds the first tensor that it is made of.

    Args:
        pattern_match: The match that is being replaced.
        module: The new module.
        x: Its input.
        state: The nodes that its tensors are made of.
        name: Of the module, where no other holds such a tensor.

    Returns:
        The new node.
    """
    held = parameters_of(state)
    holder = str(held[0].target).rpartition(".")[0] if held else module_path_of(pattern_match.nodes[-1])
    if held and holder:
        owned = [each for each in only_read_by(state, pattern_match.nodes) if each.op == "get_attr"]
        return insert_call(pattern_match, module, [x], home=held[0], owned=owned)
    return insert_call(pattern_match, module, [x], path=f"{holder}.{name}" if holder else name)


def only_read_by(state: list[fx.Node], readers: Collection[fx.Node]) -> list[fx.Node]:
    """The nodes of ``state``, in the order of the graph, that only ``readers`` and each other read; in that order."""
    inside = set(readers)
    for each in reversed(state):
        if inside.issuperset(each.users):
            inside.add(each)
    return sorted(inside.difference(readers))


def _shows(value: torch.Tensor, tensor: torch.Tensor) -> bool:
    """Whether a value is all of a tensor, in another shape."""
    same = value.untyped_storage()._cdata == tensor.untyped_storage()._cdata  # an address says nothing on "meta"
    return same and value.numel() == tensor.numel() and value.dtype == tensor.dtype


def _detaches(node: fx.Node) -> bool:
    """Whether a parameter is not trained through what a node gives."""
    return operation(node) == "detach" or (node.target is getattr and node.args[1] == "data")


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (isinstance(value, (tuple, list)) and any(map(_holds_tensors, value)))
