"""Finds tensors with repeated heads, and the tensor that they repeat.

    x[:, :, None].expand(b, h, n, s, d).reshape(b, h * n, s, d)
    x.repeat_interleave(n, dim=1)
    x.expand(b, n, s, d)                                             of one head

Heads may lie on another axis and be moved afterwards.
"""

from dataclasses import dataclass, replace

from torch import fx

from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import SAME, VIEWS, operation
from embedl_deploy.graph.signatures import bind_call
from embedl_deploy.recomposition.products import insert

#: The axis of the heads, from the last.
HEADS = -3


@dataclass(frozen=True)
class Repeated:
    """A tensor that is another one with everything along an axis repeated, each part some times in a row.

    Attributes:
        source: The other one.
        times: How often.
        swapped: The axes, from the last, that are swapped afterwards, if any are.
        nodes: What repeats and swaps.
    """

    source: fx.Node
    times: int
    swapped: tuple[int, int] | None = None
    nodes: tuple[fx.Node, ...] = ()

    def inserted(self) -> fx.Node:
        """The tensor before it is repeated, with its axes swapped, at the graph's point of insertion."""
        if self.swapped is None:
            return self.source
        return insert(self.source.graph, "transpose", self.source, *self.swapped)


def repeated(node: fx.Node, axis: int = HEADS) -> Repeated | None:
    """What a tensor repeats along an axis, counted from the last; ``None`` if that is not known to be so."""
    name, shape = operation(node), shape_of(node)
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or shape is None or shape_of(source) is None or len(shape) < -axis:
        return None
    if name in SAME:
        inner = repeated(source, axis)
        return None if inner is None else replace(inner, nodes=(*inner.nodes, node))
    if name == "transpose":
        return _behind_swap(node, source, axis)
    if name == "repeat_interleave":
        return _interleaved(node, source, axis)
    if name == "expand":
        return _expanded(node, source, axis)
    return _merged(node, source, axis) if name in VIEWS or name == "flatten" else None


def _behind_swap(node: fx.Node, source: fx.Node, axis: int) -> Repeated | None:
    rank, given = len(shape_of(node) or ()), [each for each in node.args[1:] if isinstance(each, int)]
    if len(given) != 2:
        return None
    first, second = (each % rank - rank for each in given)
    inner = repeated(source, {first: second, second: first}.get(axis, axis))
    if inner is None or inner.swapped is not None:
        return None
    return replace(inner, swapped=(first, second), nodes=(*inner.nodes, node))


def _interleaved(node: fx.Node, source: fx.Node, axis: int) -> Repeated | None:
    bound = bind_call(node)
    values = {} if bound is None else bound.values
    times, dim = values.get("repeats"), values.get("dim")
    if not isinstance(times, int) or not isinstance(dim, int) or dim not in (axis, axis + len(shape_of(node) or ())):
        return None
    return Repeated(source, times, nodes=(node,))


def _expanded(node: fx.Node, source: fx.Node, axis: int) -> Repeated | None:
    """One head, for all."""
    before, after = shape_of(source) or (), shape_of(node) or ()
    if len(before) != len(after) or [i for i in range(-len(after), 0) if before[i] != after[i]] != [axis]:
        return None
    return Repeated(source, after[axis], nodes=(node,))


def _merged(node: fx.Node, source: fx.Node, axis: int) -> Repeated | None:
    """(…, h, 1, S, D), expanded to (…, h, n, S, D), as (…, h·n, S, D)."""
    if operation(source) in SAME and isinstance(source.args[0], fx.Node):
        inner = _merged(node, source.args[0], axis)
        return None if inner is None else replace(inner, nodes=(source, *inner.nodes))
    merged, wide = shape_of(node), shape_of(source)
    if operation(source) != "expand" or merged is None or wide is None:
        return None
    narrow = source.args[0]
    tall = shape_of(narrow) if isinstance(narrow, fx.Node) else None
    if not isinstance(narrow, fx.Node) or tall is None or len(wide) != len(merged) + 1 or len(tall) != len(wide):
        return None
    before, heads, times, behind = wide[: axis - 1], wide[axis - 1], wide[axis], wide[axis + 1 :]
    if merged != (*before, heads * times, *behind) or tall != (*before, heads, 1, *behind):
        return None
    unsqueezed = _unsqueezed(narrow, axis)
    if unsqueezed is None or shape_of(unsqueezed) != (*before, heads, *behind):
        return None
    return Repeated(unsqueezed, times, nodes=(narrow, source, node))


def _unsqueezed(node: fx.Node, axis: int) -> fx.Node | None:
    """What has got an axis of size one at ``axis``: by ``unsqueeze``, ``x[:, :, None]`` or a view."""
    source, rank = node.args[0], len(shape_of(node) or ())
    if not isinstance(source, fx.Node):
        return None
    name = operation(node)
    if name == "unsqueeze":
        at = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return source if at in (axis, axis + rank) else None
    if name == "getitem" and isinstance(node.args[1], tuple):
        index = node.args[1]
        plain = all(each in (None, slice(None), Ellipsis) for each in index) and index.count(None) == 1
        if not plain:
            return None
        at = index.index(None) if Ellipsis not in index[: index.index(None)] else index.index(None) - len(index)
        return source if at in (axis, axis + rank) else None
    return source if name in VIEWS else None  # of the shapes that the caller looks at
