"""x[:, 1:] += y  becomes  x + pad(y), if the graph itself computed x.

``torch.export`` writes it as slices, a sum and a copy into the slices, and whoever reads the value afterwards reads
what was written. As a sum it is a value like others, with which patterns can do something: scores of an attention
with a class token and relative positions of the other tokens (MViT) are the usual case. What was reshaped before
something was added to it, and back, is seen through.

Left as it is: a value that others may share the memory of, or that is read in between; what is not a sum.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.operators import VIEWS, operation

_aten = torch.ops.aten


@dataclass(frozen=True)
class _Part:
    """A part of a tensor: the whole, and which of its axes are cut where."""

    whole: fx.Node
    cuts: tuple[tuple[int, int, int], ...]
    nodes: tuple[fx.Node, ...]

    def is_same(self, other: "_Part") -> bool:
        return self.whole is other.whole and self.cuts == other.cuts


def sum_into_parts(graph_module: fx.GraphModule) -> None:
    """Rewrite every such sum of a graph that ``torch.export`` has made, in place."""
    graph = graph_module.graph
    effects = Effects(graph)
    order = {node: at for at, node in enumerate(graph.nodes)}
    sums: set[fx.Node] = set()
    for write in [node for node in graph.nodes if node.target in (_aten.copy_.default, _aten.add_.Tensor)]:
        if write.users or write not in order:
            continue
        part = _part(write.args[0])
        steps = None if part is None else _steps(write if operation(write) == "add" else write.args[1], part)
        if part is None or steps is None or not (part.whole in sums or effects.owns_its_memory(part.whole)):
            continue
        group = {write, *part.nodes, *(node for step in steps for node in step.nodes)}
        if _is_alone(group, part.whole, order, write) and _fits(steps, part):
            sums.add(_rewrite(write, part, steps, group, order))
    if sums:
        graph.lint()
        graph_module.recompile()


@dataclass(frozen=True)
class _Step:
    """What is done to the part on its way to be written back: nothing, a sum with ``other``, or a view."""

    nodes: tuple[fx.Node, ...]
    other: fx.Node | None = None
    view: fx.Node | None = None


def _part(node: Any) -> _Part | None:
    """The part that a chain of slices gives; ``None`` if it is none, or sizes do not tell which."""
    cuts: dict[int, tuple[int, int]] = {}
    nodes: list[fx.Node] = []
    while isinstance(node, fx.Node) and node.target is _aten.slice.Tensor:
        source: Any = node.args[0]
        value = _value(source)
        cut = None if value is None else _cut(value, list(node.args[1:]))
        if cut is None or (cut[0] in cuts and any(cut[1:])):
            return None
        if any(cut[1:]):
            cuts[cut[0]] = cut[1:]
        nodes.append(node)
        node = source
    return _Part(node, tuple((dim, *cut) for dim, cut in sorted(cuts.items())), tuple(nodes)) if nodes else None


def _cut(value: torch.Tensor, settings: list[Any]) -> tuple[int, int, int] | None:
    """Which axis a slice cuts, and how much it leaves out before and after."""
    given: tuple[Any, ...] = (*settings, *(0, None, None, 1)[len(settings) :])
    dim, start, end, step = given
    start, end = 0 if start is None else start, sys.maxsize if end is None else end
    if not all(isinstance(each, int) for each in (dim, start, end)) or step != 1:
        return None
    size = value.shape[dim]
    if (start, end) == (0, sys.maxsize):
        return dim % value.dim(), 0, 0
    if not isinstance(size, int):
        return None
    first, last, _ = slice(start, end).indices(size)
    return dim % value.dim(), first, size - last


def _steps(node: Any, part: _Part) -> list[_Step] | None:
    """How a value is made of the part, from the part on; ``None`` if it is made in another way."""
    if not isinstance(node, fx.Node):
        return None
    own = _part(node)
    if own is not None and own.is_same(part):
        return [_Step(own.nodes)]
    if operation(node) == "add" and len(node.args) == 2:
        for inner, other in (node.args, node.args[::-1]):
            steps = _steps(inner, part)
            if steps is not None:
                return [*steps, _Step((node,), other=other)] if isinstance(other, fx.Node) else None
    if operation(node) in VIEWS:
        steps = _steps(node.args[0], part)
        return None if steps is None else [*steps, _Step((node,), view=node)]
    return None


def _is_alone(group: set[fx.Node], whole: fx.Node, order: dict[fx.Node, int], write: fx.Node) -> bool:
    """Whether nobody else reads what is written before it is, and all of it has known shapes."""
    inner = group - {write}
    values = {value for node in group for value in node.all_input_nodes}
    if any(user not in group for node in inner for user in node.users):
        return False
    if any(user not in group and order.get(user, -1) < order[write] for user in whole.users):
        return False
    return all(_value(node) is not None for node in values)


def _rewrite(
    write: fx.Node, part: _Part, steps: list[_Step], group: set[fx.Node], order: dict[fx.Node, int]
) -> fx.Node:
    """Put the sum there, for those that read what was written; the sum."""
    graph, whole = write.graph, part.whole
    with graph.inserting_before(write):
        made = list(_added(graph, steps))
        sizes = _padding(part, _rank(part))
        if any(sizes):
            made.append(graph.call_function(_aten.pad.default, (made[-1], sizes)))
        kinds = {value.dtype for step in steps if (value := _value(step.other)) is not None}
        made.append(graph.call_function(_aten.add.Tensor, (whole, made[-1])))
        if kinds - {whole.meta["val"].dtype}:  # what is written takes the type of what it is written to
            made.append(graph.call_function(_aten.type_as.default, (made[-1], whole)))
    total = made[-1]
    for node in made:
        if node not in order:
            node.meta = {key: write.meta[key] for key in ("nn_module_stack", "stack_trace") if key in write.meta}
    total.meta["val"] = whole.meta["val"]
    order[total] = order[write]
    for user in list(whole.users):
        if user not in group and user not in made:
            user.replace_input_with(whole, total)
    for node in sorted(group, reverse=True):
        graph.erase_node(node)
        order.pop(node)
    return total


def _added(graph: fx.Graph, steps: list[_Step]) -> Iterator[fx.Node]:
    """The sum of what is added, in the shape of the part; what is made on the way, first to last."""
    total: fx.Node | None = None
    for step in steps:
        if step.other is not None:
            total = step.other if total is None else graph.call_function(_aten.add.Tensor, (total, step.other))
            yield total
        elif step.view is not None and total is not None:
            total = graph.call_function(_aten.reshape.default, (total, *step.view.args[1:]))
            yield total


def _fits(steps: list[_Step], part: _Part) -> bool:
    """Whether the sum of what is added can be seen as the views on the way show it, and padded."""
    shape: tuple[Any, ...] | None = None
    for step in steps:
        if step.other is not None:
            other = tuple(_shape(step.other))
            shape = other if shape is None else tuple(torch.broadcast_shapes(shape, other))  # type: ignore[no-untyped-call]  # torch's
        elif step.view is not None and shape is not None:
            if tuple(_shape(step.view.args[0])) != shape:
                return False
            shape = tuple(_shape(step.view))
    target = _shape(part.nodes[0])
    if shape is None or len(shape) > len(target):
        return False
    missing = len(target) - len(shape)
    return all(dim >= missing and shape[dim - missing] == target[dim] for dim, *_ in part.cuts)


def _padding(part: _Part, rank: int) -> list[int]:
    """As ``torch.nn.functional.pad`` takes it: the last axis first."""
    cuts = {dim: cut for dim, *cut in part.cuts}
    return [size for dim in reversed(range(min(cuts, default=rank), rank)) for size in cuts.get(dim, (0, 0))]


def _rank(part: _Part) -> int:
    return len(_shape(part.whole))


def _shape(node: Any) -> Sequence[Any]:
    value = _value(node)
    assert value is not None  # _is_alone has looked
    return value.shape


def _value(node: Any) -> torch.Tensor | None:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None
