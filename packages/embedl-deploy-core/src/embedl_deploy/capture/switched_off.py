"""Inlines the parts of a program in which gradients or autocast are disabled.

``torch.export`` keeps what a model computes under ``torch.no_grad()``, such as a frozen backbone, or under
``torch.autocast(..., enabled=False)`` as a graph inside the graph, into which no pattern looks. A value that is
detached passes no gradient on either, and outside autocast nothing is left to switch off.
"""

from typing import Any, cast

import torch
from torch import fx

_GRADIENTS = torch.ops.higher_order.wrap_with_set_grad_enabled
_AUTOCAST = torch.ops.higher_order.wrap_with_autocast


def inline_switched_off(graph_module: fx.GraphModule) -> None:
    """Put the nodes of each part where it is called, in place; the results of one without gradients are detached.

    A part stays as it is whose graph has parts of another kind inside, or, without gradients, writes to what is from
    outside: into a parameter that is allowed without gradients alone. So does one under autocast that is on, with all
    that is in it: there, autocast that is off makes a difference.
    """
    graph = graph_module.graph
    for node in [node for node in graph.nodes if node.target in (_GRADIENTS, _AUTOCAST)]:
        without_gradients = node.target is _GRADIENTS
        enabled, place, inputs = _call_of(node)
        source = str(place.target)
        if enabled and not without_gradients:
            continue
        part = getattr(graph_module, source)
        inline_switched_off(part)
        inside = part.graph.find_nodes(op="get_attr") or part.graph.find_nodes(op="call_module")
        if enabled or inside or (without_gradients and any(map(_writes_into_an_input, part.graph.nodes))):
            continue
        values = dict(zip(part.graph.find_nodes(op="placeholder"), inputs, strict=True))
        with graph.inserting_before(node):
            results = cast("tuple[Any, ...]", graph.graph_copy(part.graph, values))
            if without_gradients:
                results = tuple(result if result in inputs else _detached(result) for result in results)
        for use in list(node.users):
            use.replace_all_uses_with(results[use.args[1]])
            graph.erase_node(use)
        graph.erase_node(node)
        if not place.users:
            graph.erase_node(place)
            delattr(graph_module, source)
    graph_module.recompile()


def _call_of(node: fx.Node) -> tuple[bool, fx.Node, tuple[Any, ...]]:
    """Of the call of a part: whether what it switches is on, where the part is, and what it is given."""
    if node.target is _GRADIENTS:
        enabled, source, *inputs = cast("tuple[Any, ...]", node.args)
    else:
        _device, _dtype, enabled, _cache, source, *inputs = cast("tuple[Any, ...]", node.args)
    return enabled, source, tuple(inputs)


def _writes_into_an_input(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return False
    written: Any = node
    while isinstance(written, fx.Node) and _is_alias(written):
        written = written.args[0]
    return isinstance(written, fx.Node) and written.op == "placeholder"


def _is_alias(node: fx.Node) -> bool:
    """Whether a node's value shares memory with its first argument: it is a view of that, or written there."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.arguments and schema.arguments[0].alias_info is not None)


def _detached(value: Any) -> Any:
    """A value without its gradient; what is not a tensor of floating point has none."""
    known = value.meta.get("val") if isinstance(value, fx.Node) else None
    if not isinstance(known, torch.Tensor) or not known.is_floating_point():
        return value
    node = value.graph.call_function(torch.ops.aten.detach.default, (value,))
    node.meta = dict(value.meta)
    return node
