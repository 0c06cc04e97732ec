"""Values that are computed from parameters and buffers alone: the same in every call until the model is trained on."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.dead_code import is_pure
from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.in_place import tensor_given_back
from embedl_deploy.graph.lookup import get_constant, has_hooks, owner, submodule
from embedl_deploy.graph.memo import remembered


def is_state(node: fx.Node) -> bool:
    """Whether a value is a parameter or buffer, or computed from such alone.

    By functions without effects; one that writes in place into what was computed has none on the model.
    """
    return node in remembered(_state_values, node.graph)


def _state_values(graph: fx.Graph) -> frozenset[fx.Node]:
    found: set[fx.Node] = set()
    effects = remembered(Effects, graph)
    for node in graph.nodes:
        if node.op == "get_attr":
            if not _is_computed_by_a_hook(node):
                found.add(node)
        elif node.op not in ("call_function", "call_method") or not found.issuperset(node.all_input_nodes):
            continue
        elif is_pure(node) or _writes_into_its_own(node, effects):
            found.add(node)
    return frozenset(found)


def _writes_into_its_own(node: fx.Node, effects: Effects) -> bool:
    """Whether a call writes in place into what was computed, with which no tensor of the model shares memory."""
    tensor = tensor_given_back(node)
    while tensor is not None and (before := tensor_given_back(tensor)) is not None:
        tensor = before
    return tensor is not None and effects.owns_its_memory(tensor)


def _is_computed_by_a_hook(node: fx.Node) -> bool:
    """As the weight of a layer under ``torch.nn.utils.weight_norm``, which is another in every call."""
    parent, _, name = str(node.target).rpartition(".")
    holder = submodule(owner(node), parent) if parent else owner(node)
    return has_hooks(holder) and isinstance(vars(holder).get(name), torch.Tensor)


def made_from(node: fx.Node) -> list[fx.Node]:
    """A value and all that it is computed from, in the order of the graph."""
    found: dict[fx.Node, None] = {}
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = None
            waiting.extend(current.all_input_nodes)
    return sorted(found)


@torch.no_grad()
def value_of_state(node: fx.Node) -> Any:
    """What a node of which :func:`is_state` holds gives: a tensor, a size, several tensors."""
    return remembered(_value, node)


def _value(node: fx.Node) -> Any:
    values: dict[fx.Node, Any] = {}
    for each in made_from(node):
        if each.op == "get_attr":
            values[each] = get_constant(each)
            continue
        args, kwargs = fx.map_arg((each.args, each.kwargs), values.__getitem__)
        if each.op == "call_method":
            values[each] = getattr(args[0], str(each.target))(*args[1:], **kwargs)
        else:
            assert callable(each.target)  # it is a function
            values[each] = each.target(*args, **kwargs)
    return values[node]


def parameters_of(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """The nodes that stand for tensors of the model: parameters first, then buffers."""
    held = [node for node in nodes if node.op == "get_attr"]
    return sorted(held, key=lambda node: not isinstance(get_constant(node), nn.Parameter))
