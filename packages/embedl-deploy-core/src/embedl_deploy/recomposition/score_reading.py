"""The walk from a softmax back to the product of queries and keys that its scores come from.

On the way may be factors, a soft cap, masks that are added or filled in, casts, and views of the batch. Anything else
ends the walk, and is the reason that is told.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.casts import CASTS, NAMED_CASTS, written_type
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import SAME, VIEWS, operation
from embedl_deploy.graph.signatures import bind_call
from embedl_deploy.patterns.diagnosis import describe_node
from embedl_deploy.recomposition.products import orientations, product_of
from embedl_deploy.recomposition.scores import NoScoresError, Scores, View
from embedl_deploy.recomposition.written_numbers import lowest_of, number_of


def scores_of(node: fx.Node) -> Scores:
    """Read the scores that a node gives.

    Raises:
        NoScoresError: They are something else.
    """
    product = product_of(node)
    if product is not None:
        for seen in orientations(product):
            if seen.order is None:
                scores = Scores(seen.left, seen.right.swapped(), (node,), factor=seen.factor)
                if seen.added is None:
                    return scores
                mask, factor = seen.added
                return replace(scores, added=(("add", mask), ("mul", factor)), outside=(mask,))
        raise NoScoresError(f"the axes of {node.name} are not those of queries and keys")
    name = operation(node)
    reader = _READERS.get(name) if isinstance(name, str) else None
    if reader is None or not node.op.startswith("call_"):
        raise NoScoresError(f"{describe_node(node)} stands between the softmax and a product of queries and keys")
    return reader(node)


def _pair(node: fx.Node) -> tuple[Any, Any]:
    """The two operands of a sum or product."""
    bound = bind_call(node) if node.kwargs else None
    values = list(bound.values.values()) if bound is not None else list(node.args)
    return (values[0], values[1]) if len(values) > 1 else (None, None)


def _unbroadcast(inner: fx.Node, node: fx.Node) -> None:
    """Raise if what is computed beside scores has made them larger."""
    if shape_of(inner) != shape_of(node):
        raise NoScoresError(f"{node.name} changes the shape of the scores")


def _scale(node: fx.Node) -> Scores:
    """Scores times or divided by something."""
    name, (first, second) = str(operation(node)), _pair(node)
    if operation(node) == "div" and node.kwargs.get("rounding_mode") is not None:
        raise NoScoresError(f"{node.name} rounds the scores")
    if not isinstance(first, fx.Node) or number_of(first) is not None:
        first, second = second, first
        if name == "div":
            raise NoScoresError(f"{node.name} divides by the scores")
    number = number_of(second)
    if number == 0:
        raise NoScoresError(f"{node.name} scales the scores by 0")
    if number is not None:
        return _scaled(node, scores_of(first), number if name == "mul" else 1 / number)
    last: NoScoresError | None = None
    for inner, by in ((first, second), (second, first)) if name == "mul" else ((first, second),):
        try:
            return _scaled_by_tensor(node, scores_of(inner), name, by)
        except NoScoresError as reason:
            last = last or reason
    assert last is not None
    raise last


def _scaled(node: fx.Node, scores: Scores, number: float) -> Scores:
    if scores.hidden:
        raise NoScoresError(f"{node.name} scales scores of which some are hidden already")
    if scores.softcap is not None and (number <= 0 or scores.added):
        raise NoScoresError(f"{node.name} scales scores that are capped already")
    added = (*scores.added, ("mul", number)) if scores.added else ()
    softcap = None if scores.softcap is None else scores.softcap * number
    return scores.then(node, factor=scores.factor * number, added=added, softcap=softcap)


def _scaled_by_tensor(node: fx.Node, scores: Scores, name: str, by: fx.Node) -> Scores:
    """A factor for each query or head goes to the queries."""
    shape = shape_of(by)
    if shape is None and by.meta.get("tensor_meta") is None and shape_of(scores.nodes[0]) is not None:
        shape = ()  # a number that is computed on the way
    inner = scores.nodes[-1]
    _unbroadcast(inner, node)
    if shape is None or (shape and shape[-1] != 1):
        raise NoScoresError(f"{node.name} scales the scores by {by.name}, which is not one factor for each query")
    if scores.added or scores.hidden or scores.softcap is not None or scores.views:
        raise NoScoresError(f"{node.name} scales scores that are masked or capped already")
    return scores.then(node, factors=(*scores.factors, (name, by)))


def _cap(node: fx.Node) -> Scores:
    """tanh(f·q·kᵀ), a cap at one, which a factor after it raises."""
    scores = scores_of(node.all_input_nodes[0])
    if scores.softcap is not None or scores.added or scores.hidden:
        raise NoScoresError(f"{node.name} caps scores that are masked or capped already")
    return scores.then(node, softcap=1.0)


def _add(node: fx.Node) -> Scores:
    """Scores with a mask."""
    name, (first, second) = str(operation(node)), _pair(node)
    operands = [(first, second), (second, first)] if name == "add" else [(first, second)]
    last: NoScoresError | None = None
    for inner, mask in operands:
        if not isinstance(inner, fx.Node):
            continue
        try:
            scores = scores_of(inner)
            _unbroadcast(inner, node)
            if scores.hidden:
                raise NoScoresError(f"{node.name} adds to scores of which some are hidden already")
            if not isinstance(mask, fx.Node) or shape_of(mask) is None:
                raise NoScoresError(f"{node.name} adds no tensor to the scores")
            return scores.with_mask(node, mask, added=(*scores.added, (name, mask)))
        except NoScoresError as reason:
            last = last or reason
    raise last or NoScoresError(f"{node.name} adds no tensors")


def _fill(node: fx.Node) -> Scores:
    """Scores of which some are replaced by a number: ``masked_fill``, or ``where`` with scores on either side."""
    bound = bind_call(node)
    if bound is None:
        raise NoScoresError(f"{describe_node(node)} stands between the softmax and a product of queries and keys")
    values = bound.values
    if operation(node) == "masked_fill":
        sides = [(values["input"], values["value"], values["mask"], True)]
    else:
        condition = values.get("condition")
        first, second = values.get("input"), values.get("other")
        sides = [(first, second, condition, False), (second, first, condition, True)]
    for inner, fill, where, hides in sides:
        number = lowest_of(fill) if number_of(fill) is None else number_of(fill)
        if not isinstance(inner, fx.Node) or number is None or not isinstance(where, fx.Node):
            continue
        scores = scores_of(inner)
        _unbroadcast(inner, node)
        if scores.hidden and scores.hidden_score != number:
            raise NoScoresError(f"{node.name} hides scores by another number than those hidden already")
        if dtype_of(where) != torch.bool:
            raise NoScoresError(f"{where.name}, by which {node.name} hides scores, holds no booleans")
        return scores.with_mask(node, where, hidden=(*scores.hidden, (where, hides)), hidden_score=number)
    fills = " or ".join(fill.name for _, fill, _, _ in sides if isinstance(fill, fx.Node))
    raise NoScoresError(f"{node.name} replaces scores by {fills}, which is not a literal number in the graph")


def cast_of(node: fx.Node) -> torch.dtype | None:
    """The dtype that a cast gives; ``None`` if it is not known."""
    name = operation(node)
    if isinstance(name, str) and name in NAMED_CASTS:
        return NAMED_CASTS[name]
    return dtype_of(node)


def _cast(node: fx.Node) -> Scores:
    inner = node.all_input_nodes[0]
    scores, dtype = scores_of(inner), cast_of(node)
    if dtype is None or not dtype.is_floating_point:
        raise NoScoresError(f"{node.name} makes other numbers of the scores")
    wide = torch.finfo(dtype).bits >= torch.finfo(dtype_of(scores.nodes[0]) or dtype).bits
    if not wide:
        raise NoScoresError(f"{node.name} rounds the scores to {dtype}")
    return scores.then(node, dtype=scores.dtype if written_type(node) is None else dtype)


def sizes_of(view: fx.Node) -> tuple[Any, ...]:
    """What a view is given: numbers, or nodes that give some."""
    sizes = view.args[1:]
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (list, tuple)) else tuple(sizes)


def _view(node: fx.Node) -> Scores:
    """The same scores, with other axes of the batch."""
    inner = node.args[0]
    assert isinstance(inner, fx.Node)
    scores, before, after = scores_of(inner), shape_of(inner), shape_of(node)
    if before is None or after is None or before[-2:] != after[-2:] or len(after) < 2:
        raise NoScoresError(f"{node.name} moves the axes of the scores")
    if before == after:
        return scores.then(node)
    sizes = sizes_of(node)
    if len(sizes) != len(after) or node.kwargs:
        raise NoScoresError(f"{node.name} moves the axes of the scores")
    if len(scores.views) == 1 and after == shape_of(scores.nodes[0]):
        return scores.then(node, views=(*scores.views, View(sizes, after)))
    if scores.views:
        raise NoScoresError(f"{node.name} moves the axes of the scores once more")
    return scores.then(node, views=(View(sizes, after),))


def _same(node: fx.Node) -> Scores:
    return scores_of(node.all_input_nodes[0]).then(node)


_READERS: dict[str, Callable[[fx.Node], Scores]] = {
    "mul": _scale,
    "div": _scale,
    "tanh": _cap,
    "add": _add,
    "sub": _add,
    "masked_fill": _fill,
    "where": _fill,
    **dict.fromkeys(CASTS, _cast),
    **dict.fromkeys(VIEWS, _view),
    **dict.fromkeys(SAME, _same),
}
