"""softmax(f·q·kᵀ + mask) @ v, written out  becomes  ScaledDotProductAttention.

    scores = (q @ k.transpose(-2, -1)) * f + bias        q, k, v, bias ─▶ ScaledDotProductAttention(scale=f)
    scores.softmax(-1) @ v

Products may be ``@``, ``bmm``, ``baddbmm`` or ``einsum``. The factor may stand before or behind the product, and be a
number or a tensor with one value for each query or head. Masks are added, or filled in. Scores may be capped, computed
in another dtype, and seen as windows while a mask is added; weights may be dropped. What is done to queries, keys and
values before, their projections, norms and rotations, stays as it is.

Declined: scores or weights that are used elsewhere, or mixed across heads; an axis that is cut, joined or moved; shapes
that are not known.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import _extract_tensor_metadata

from embedl_deploy.graph.casts import CASTS
from embedl_deploy.graph.fixed_sizes import size_is_fixed
from embedl_deploy.graph.index import call_index
from embedl_deploy.graph.lookup import get_constant, get_module, has_hooks
from embedl_deploy.graph.metadata import dtype_of, module_path_of, shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.products import product_of_call
from embedl_deploy.modules.attention import ScaledDotProductAttention
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matcher import outside_use
from embedl_deploy.patterns.matches import Declined, Matches, PatternMatch, TreeMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import insert_call, replace_match
from embedl_deploy.recomposition import attention_examples
from embedl_deploy.recomposition.products import Product, insert, orientations, product_of, swapped_source
from embedl_deploy.recomposition.scores import (
    SAME,
    VIEWS,
    NoScoresError,
    Scores,
    View,
    cast_of,
    number_of,
    scores_of,
    sizes_of,
    softmax_input,
)


@dataclass(frozen=True)
class Attention:
    """An attention as it stands in a graph.

    Attributes:
        scores: What the softmax is over.
        softmax: The softmax.
        after: What stands between it and the second product: casts, dropout, views.
        product: The second product, weights on the left.
        dtype: The dtype that the softmax is computed in, if the graph says one.
        dropout: The probability that a weight is dropped in training mode.
    """

    scores: Scores
    softmax: fx.Node
    after: tuple[fx.Node, ...]
    product: Product
    dtype: torch.dtype | None
    dropout: float

    @property
    def nodes(self) -> list[fx.Node]:
        """All of its nodes, in graph order, with what torch.export asserts of their types."""
        inner = {*self.scores.nodes, self.softmax, *self.after}
        asserted = {user for node in inner for user in node.users if operation(user) == "_assert_tensor_metadata"}
        return sorted({*inner, *asserted, self.product.node})


class RecomposeAttentionPattern(Pattern):
    """Attention written out as two products and a softmax, as one module."""

    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return attention_examples.examples()

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return attention_examples.near_misses()

    def match(self, graph_module: fx.GraphModule) -> Matches:
        """Look around every softmax over a last axis of which a product weighs something."""
        found: list[PatternMatch] = []
        declined: list[Declined] = []
        for softmax in call_index(graph_module.graph).calls:
            way = _way_to_product(softmax) if softmax_input(softmax) is not None else None
            if way is None:
                continue
            try:
                attention = _read(softmax, *way)
                reason = outside_use(attention.nodes) or _may_be_for_keys(attention.scores)
            except NoScoresError as error:
                declined.append(Declined(self.name, (softmax.name, way[1].node.name), str(error)))
                continue
            if reason is None:
                found.append(PatternMatch(self, TreeMatch(tuple(attention.nodes))))
            else:
                declined.append(Declined(self.name, tuple(node.name for node in attention.nodes), reason))
        return Matches(found, declined)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        softmax = next(node for node in pattern_match.nodes if softmax_input(node) is not None)
        way = _way_to_product(softmax)
        assert way is not None  # it matched
        attention, last = _read(softmax, *way), pattern_match.tree_match.last
        caller = module_path_of(last)
        path = f"{caller}.scaled_dot_product_attention" if caller else "scaled_dot_product_attention"
        with last.graph.inserting_before(last):
            inputs, module = _inputs_and_module(attention)
            attended = insert_call(pattern_match, module, inputs, path=path)
            output = _as_it_was(attention, attended)
        replace_match(pattern_match, output)
        return [attended] if output is attended else [attended, output]


def _way_to_product(softmax: fx.Node) -> tuple[tuple[fx.Node, ...], Product] | None:
    """What stands between a softmax and the product that weighs something by it, and that product, if there is one."""
    for after, node in _ways(softmax):
        product = product_of(node)
        read = next((each for each in reversed(after) if not _is_swap(each)), softmax)
        for seen in () if product is None else orientations(product):
            weights = seen.left
            plain = weights.order is None or weights.order == tuple(range(len(weights.order)))
            if plain and weights.node is read and seen.right.node not in (softmax, *after):
                return after, seen
    return None


def _is_swap(node: fx.Node) -> bool:
    return swapped_source(node) is not None


def _ways(node: fx.Node, passed: tuple[fx.Node, ...] = ()) -> Iterator[tuple[tuple[fx.Node, ...], fx.Node]]:
    """The readers of a value, also those behind casts, dropout, views and, last of all, a swap of rows and columns."""
    for user in node.users:
        yield passed, user
        if user.args and user.args[0] is node:
            if _passes(user):
                yield from _ways(user, (*passed, user))
            elif _is_swap(user):
                yield from (((*passed, user), reader) for reader in user.users)


def _passes(node: fx.Node) -> bool:
    return operation(node) in CASTS | SAME | VIEWS or isinstance(get_module(node), nn.Dropout)


def _read(softmax: fx.Node, after: tuple[fx.Node, ...], product: Product) -> Attention:
    """Read an attention.

    Raises:
        NoScoresError: Something in it has no place in the module.
    """
    taken = softmax_input(softmax)
    assert taken is not None
    scores = scores_of(taken[0])
    dropout = 0.0
    for node in after:
        module = get_module(node)
        if isinstance(module, nn.Dropout):
            if node.op == "call_module" and has_hooks(module):
                raise NoScoresError(f"hooks on {node.name} would be lost")
            if node.op != "call_module" and module.training and module.p > 0:
                raise NoScoresError(f"{node.name} drops attention weights in evaluation mode too")
            dropout = module.p if node.op == "call_module" else 0.0
        elif operation(node) in VIEWS and shape_of(node) != shape_of(node.args[0]):  # type: ignore[arg-type]  # a node
            if len(scores.views) != 1 or shape_of(node) != shape_of(scores.nodes[0]):
                raise NoScoresError(f"{node.name} moves the axes of the attention weights")
            shape = shape_of(node)
            assert shape is not None
            scores = replace(scores, views=(*scores.views, View(sizes_of(node), shape)))
    if softmax.op == "call_module" and has_hooks(nn.Module() if (m := get_module(softmax)) is None else m):
        raise NoScoresError(f"hooks on {softmax.name} would be lost")
    attention = Attention(scores, softmax, after, product, taken[1] or scores.dtype, dropout)
    _check_dtypes(attention)
    _check_views(attention)
    return attention


def _check_dtypes(attention: Attention) -> None:
    scores, product = attention.scores, attention.product
    dtype = dtype_of(scores.query.node)
    kinds = {dtype_of(node) for node in (scores.query.node, scores.key.node, product.right.node, product.node)}
    if len(kinds) > 1:
        raise NoScoresError(f"queries, keys and values are of several dtypes ({', '.join(sorted(map(str, kinds)))})")
    for node in attention.after:
        if operation(node) in CASTS and cast_of(node) != dtype and cast_of(node) != attention.dtype:
            raise NoScoresError(
                f"{node.name} makes {cast_of(node)} of the attention weights, their queries are {dtype}"
            )
    for step, mask in scores.added:
        kind = dtype_of(mask) if step != "mul" else dtype
        if kind not in (dtype, attention.dtype):
            raise NoScoresError(f"{mask.name}, which is added to the scores, is {kind}, queries are {dtype}")


def _may_be_for_keys(scores: Scores) -> str | None:
    """Why a factor with one value for each query may have one for each key, if the example has but one key."""
    shape = shape_of(scores.nodes[0])
    if shape is None or shape[-1] != 1:
        return None
    for _, factor in scores.factors:
        if shape_of(factor) and not size_is_fixed(factor, -1):
            return f"the example has one key, and {factor.name} may be a factor for each key: give one with more"
    return None


def _check_views(attention: Attention) -> None:
    """Raise unless queries, keys, values and masks can be seen as the view has the scores."""
    scores = attention.scores
    if not scores.views:
        return
    before, view = shape_of(scores.nodes[0]), scores.views[0]
    assert before is not None
    operands = [scores.query, scores.key, *([attention.product.right] if len(scores.views) == 2 else [])]
    if any(operand.shape[:-2] != before[:-2] for operand in operands):
        raise NoScoresError("queries, keys and values have other axes than the scores, which are seen in several ways")
    common = 0
    for old, new in zip(reversed(before), reversed(view.shape), strict=False):
        if old != new:
            break
        common += 1
    if len(before) != len(view.shape):  # the first axis is cut or joined, also where a batch of one hides it
        common = min(common, len(before) - 1, len(view.shape) - 1)
    for mask in scores.outside:
        if _has_the_batch(mask, scores):
            continue
        shape = shape_of(mask) or ()
        own = len(shape) - next((i for i, size in enumerate(shape) if size != 1), len(shape))
        if own > common or len(shape) > len(view.shape):
            raise NoScoresError(
                f"{mask.name} has the axes of the scores before {scores.nodes[0].name} is seen in another way"
            )


def _has_the_batch(mask: fx.Node, scores: Scores) -> bool:
    """Whether a mask has all axes of the batch that scores have before they are seen in another way."""
    shape, before = shape_of(mask), shape_of(scores.nodes[0])
    return shape is not None and before is not None and len(shape) == len(before) and shape[:-2] == before[:-2]


def _with_masks_seen(scores: Scores) -> Scores:
    """The scores, with the masks that have the axes of the batch seen as the view has these; made where nodes are."""
    if not scores.views:
        return scores
    *batch, rows, columns = scores.views[0].sizes
    seen: dict[Any, fx.Node] = {}
    for mask in scores.outside:
        if mask not in seen and _has_the_batch(mask, scores):
            shape = shape_of(mask)
            assert shape is not None
            last = [1 if size == 1 else whole for size, whole in zip(shape[-2:], (rows, columns), strict=True)]
            seen[mask] = _reshaped_to(mask, (*batch, *last))
            known = torch.empty(*scores.views[0].shape[:-2], *shape[-2:], dtype=dtype_of(mask), device="meta")
            seen[mask].meta["tensor_meta"] = _extract_tensor_metadata(known)
    return replace(
        scores,
        added=tuple((step, seen.get(value, value)) for step, value in scores.added),
        hidden=tuple((seen.get(node, node), hides) for node, hides in scores.hidden),
    )


def _inputs_and_module(attention: Attention) -> tuple[list[Any], ScaledDotProductAttention]:
    """What flows in, made where nodes are being inserted, and the module for it."""
    scores = attention.scores
    query, key, value = scores.query.inserted(), scores.key.inserted(), attention.product.right.inserted()
    for name, factor in scores.factors:
        query = insert(query.graph, name, query, factor)
    if scores.views:
        *batch, rows, columns = scores.views[0].sizes
        query = _reshaped(query, *batch, rows)
        key = _reshaped(key, *batch, columns)
        value = _reshaped(value, *batch, columns) if len(scores.views) == 2 else value
    scores = _with_masks_seen(scores)
    mask, hidden = _mask(scores)
    may_see_nothing = hidden is None and (bool(scores.hidden) or any(_may_be_infinite(step) for step in scores.added))
    module = ScaledDotProductAttention(
        attention.dropout,
        joins_heads=False,
        scale=scores.factor,
        softcap=scores.softcap,
        hidden_score=scores.hidden_score if hidden is not None else -math.inf,
        softmax_dtype=attention.dtype,
        unseen_is_nan=mask is not None and may_see_nothing,
    )
    masks = [mask, hidden] if hidden is not None else [mask] if mask is not None else []
    return [query, key, value, *masks], module


def _reshaped(node: fx.Node, *sizes: Any) -> fx.Node:
    """Seen with other axes of the batch; the last axis stays."""
    shape = shape_of(node)
    assert shape is not None
    return node.graph.call_method("reshape", (node, *sizes, shape[-1]))


def _as_it_was(attention: Attention, attended: fx.Node) -> fx.Node:
    """The value of the second product, with its axes."""
    scores, product = attention.scores, attention.product
    if len(scores.views) == 2:
        attended = _reshaped_to(attended, (*scores.views[1].sizes[:-1], product.right.shape[-1]))
    if product.order is None:
        return attended
    return attended.graph.call_method("permute", (attended, product.order))


def _reshaped_to(node: fx.Node, sizes: tuple[Any, ...]) -> fx.Node:
    return node.graph.call_method("reshape", (node, *sizes))


def _mask(scores: Scores) -> tuple[fx.Node | None, fx.Node | None]:
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


def _may_be_infinite(step: tuple[str, Any]) -> bool:
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
