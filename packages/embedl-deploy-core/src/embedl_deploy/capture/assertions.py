"""Removes assertions from graphs of ``torch.export``, because they compute nothing and block conversions.

``torch.export`` notes the type and device of each tensor that is converted (``aten._assert_tensor_metadata``): a graph
with such notes cannot be moved to another type or device. ``torch._check`` and the like on values are assertions on
numbers that no file of ONNX can hold, and what they are computed from would be an output of every fusion around it.
What is asked of inputs is asked before the graph runs, see ``graph/exported_inputs.py``.

An assertion on a number that the graph continues with, such as a size that is read from a tensor, stays: whoever traces
the graph again needs to know what is asserted.
"""

from typing import Any

import torch
from torch import fx

from embedl_deploy.capture.source import source_of

aten: Any = torch.ops.aten

_ON_METADATA = frozenset({aten._assert_tensor_metadata.default})
_ON_VALUES = frozenset(
    {
        *(aten._assert_async.default, aten._assert_async.msg, aten._assert_scalar.default),
        *(aten.sym_constrain_range.default, aten.sym_constrain_range_for_size.default),
    }
)


def drop_assertions(graph_module: fx.GraphModule) -> str | None:
    """Remove assertions, and what only they read, from a graph and the graphs inside it.

    Returns:
        What to tell of assertions that the model's code makes of values; ``None`` if there are none.
    """
    places: list[str] = []
    for part in [part for part in graph_module.modules() if isinstance(part, fx.GraphModule)]:
        nodes = list(part.graph.nodes)
        on_metadata = [node for node in nodes if node.target in _ON_METADATA]
        on_values = [node for node in nodes if node.target in _ON_VALUES]
        idle = _read_by_none_but(on_values)
        on_values = [node for node in on_values if _is_free(node, idle)]
        places += [source_of(node) or "" for node in on_values if node.target is not aten.sym_constrain_range.default]
        going = {*on_metadata, *on_values}
        for node in reversed(nodes):
            if node in going or (node in idle and node.target not in _ON_VALUES and not node.users):
                node.graph.erase_node(node)
        if on_metadata or on_values:
            part.recompile()
    if not places:
        return None
    where = next((f", the first at {place}" for place in places if place), "")
    return f"what the model's code asserts of values is not part of the graph ({len(places)} assertions{where})"


def _read_by_none_but(assertions: list[fx.Node]) -> set[fx.Node]:
    """The assertions, and the nodes that are read by nothing else."""
    idle = set(assertions)
    waiting = [node for assertion in assertions for node in assertion.all_input_nodes]
    while waiting:
        node = waiting.pop()
        if node in idle or node.op != "call_function" or not all(user in idle for user in node.users):
            continue
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            continue
        idle.add(node)
        waiting.extend(node.all_input_nodes)
    return idle


def _is_free(assertion: fx.Node, idle: set[fx.Node]) -> bool:
    """Whether it is on values alone: not on sizes of inputs, and on no number that the graph continues with."""
    first = assertion.all_input_nodes[0].meta.get("val") if assertion.all_input_nodes else None
    numbers = _numbers_of(assertion)
    return isinstance(first, torch.Tensor) or (bool(numbers) and numbers <= idle)


def _numbers_of(assertion: fx.Node) -> set[fx.Node]:
    """The nodes by which values of tensors become the numbers that an assertion is on."""
    found: set[fx.Node] = set()
    waiting, seen = [assertion], set[fx.Node]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.target is aten.item.default:
            found.add(node)
        elif node is assertion or not isinstance(node.meta.get("val"), torch.Tensor):
            waiting.extend(node.all_input_nodes)
    return found
