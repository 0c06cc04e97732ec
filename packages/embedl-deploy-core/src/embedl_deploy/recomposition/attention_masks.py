"""Turns what is added to attention scores, or hides them, into the masks of one module."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import _extract_tensor_metadata

from embedl_deploy.graph.lookup import get_constant
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.products import product_of_call
from embedl_deploy.recomposition.products import insert
from embedl_deploy.recomposition.scores import Scores
from embedl_deploy.recomposition.written_numbers import number_of


def has_the_batch(mask: fx.Node, scores: Scores) -> bool:
    """Whether a mask has all axes of the batch that scores have before they are seen in another way."""
    shape, before = shape_of(mask), shape_of(scores.nodes[0])
    return shape is not None and before is not None and len(shape) == len(before) and shape[:-2] == before[:-2]


def with_masks_seen(scores: Scores) -> Scores:
    """The scores, with the masks that have the axes of the batch seen as the view has these; made where nodes are."""
    if not scores.views:
        return scores
    *batch, rows, columns = scores.views[0].sizes
    seen: dict[Any, fx.Node] = {}
    for mask in scores.outside:
        if mask not in seen and has_the_batch(mask, scores):
            shape = shape_of(mask)
            assert shape is not None
            last = [1 if size == 1 else whole for size, whole in zip(shape[-2:], (rows, columns), strict=True)]
            seen[mask] = mask.graph.call_method("reshape", (mask, *batch, *last))
            known = torch.empty(*scores.views[0].shape[:-2], *shape[-2:], dtype=dtype_of(mask), device="meta")
            seen[mask].meta["tensor_meta"] = _extract_tensor_metadata(known)
    return replace(
        scores,
        added=tuple((step, seen.get(value, value)) for step, value in scores.added),
        hidden=tuple((seen.get(node, node), hides) for node, hides in scores.hidden),
    )


def masks_of(scores: Scores) -> tuple[fx.Node | None, fx.Node | None]:
    """What is added to the scores or, of booleans, says which are seen; and where they are replaced by a number."""
    mask: fx.Node | None = None
    for step, value in scores.added:
        if step == "mul":
            mask = insert(mask.graph, "mul", mask, value) if mask is not None and value != 1 else mask
        elif mask is None:
            mask = value if step == "add" else insert(value.graph, "neg", value)
        else:
            mask = insert(mask.graph, step, mask, value)
    if not scores.hidden:
        return mask, None
    if scores.hidden_score != -math.inf:
        return mask, _all_of(scores, "logical_or", hides=True)
    seen = _all_of(scores, "logical_and", hides=False)
    return (seen if mask is None else insert(mask.graph, "where", mask, seen, -math.inf)), None


def _all_of(scores: Scores, joined: str, *, hides: bool) -> fx.Node:
    """The booleans of the scores as one tensor that is true where a score is hidden, or where it is seen."""
    whole: fx.Node | None = None
    for node, says_hidden in scores.hidden:
        part = node if says_hidden is hides else insert(node.graph, "logical_not", node)
        whole = part if whole is None else insert(node.graph, joined, whole, part)
    assert whole is not None
    return whole


def may_be_infinite(step: tuple[str, Any]) -> bool:
    """Whether what is added may hold −∞: an input of the model, or made with such a number."""
    waiting, seen = ([] if step[0] == "mul" else [step[1]]), set()
    while waiting:
        node = waiting.pop()
        dtype = dtype_of(node)
        if node in seen or (dtype is not None and not dtype.is_floating_point):
            continue
        seen.add(node)
        if node.op == "placeholder":
            return True
        if node.op == "get_attr":
            value = get_constant(node)
            fixed = isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter)
            if fixed and value.device.type != "meta" and bool(value.isinf().any()):
                return True
        numbers = [number_of(value) for value in (*node.args, *node.kwargs.values())]
        if any(number is not None and math.isinf(number) for number in numbers):
            return True
        if node.op != "call_module" and product_of_call(node) is None:
            waiting.extend(node.all_input_nodes)
    return False
