"""softmax(f·q·kᵀ + mask) @ v, written out  becomes  ScaledDotProductAttention.

    scores = (q @ k.transpose(-2, -1)) * f + bias        q, k, v, bias ─▶ ScaledDotProductAttention(scale=f)
    scores.softmax(-1) @ v

Products may be ``@``, ``bmm``, ``baddbmm`` or ``einsum``. The factor may stand before or after the product, and be a
number or a tensor with one value for each query or head. Masks are added, or filled in. Scores may be capped, computed
in another dtype, and seen as windows while a mask is added; weights may be dropped. What is done to queries, keys and
values before, their projections, norms and rotations, stays as it is.

Declined: scores or weights that are used elsewhere, or mixed across heads; an axis that is cut, joined or moved; shapes
that are not known.
"""

import math
from typing import Any

from torch import fx

from embedl_deploy.graph.index import call_index
from embedl_deploy.graph.metadata import module_path_of, shape_of
from embedl_deploy.modules.attention import ScaledDotProductAttention
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matcher import outside_use
from embedl_deploy.patterns.matches import Declined, Matches, PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import insert_call, replace_match
from embedl_deploy.patterns.tree_match import TreeMatch
from embedl_deploy.recomposition import attention_examples
from embedl_deploy.recomposition.attention_masks import masks_of, may_be_infinite, with_masks_seen
from embedl_deploy.recomposition.attention_reading import Attention, may_be_for_keys, read_attention, way_to_product
from embedl_deploy.recomposition.products import insert
from embedl_deploy.recomposition.scores import NoScoresError
from embedl_deploy.recomposition.softmax import softmax_input


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
            way = way_to_product(softmax) if softmax_input(softmax) is not None else None
            if way is None:
                continue
            try:
                attention = read_attention(softmax, *way)
                reason = outside_use(attention.nodes) or may_be_for_keys(attention.scores)
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
        way = way_to_product(softmax)
        assert way is not None  # it matched
        attention, last = read_attention(softmax, *way), pattern_match.tree_match.last
        caller = module_path_of(last)
        path = f"{caller}.scaled_dot_product_attention" if caller else "scaled_dot_product_attention"
        with last.graph.inserting_before(last):
            inputs, module = _inputs_and_module(attention)
            attended = insert_call(pattern_match, module, inputs, path=path)
            output = _in_original_layout(attention, attended)
        replace_match(pattern_match, output)
        return [attended] if output is attended else [attended, output]


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
    scores = with_masks_seen(scores)
    mask, hidden = masks_of(scores)
    may_see_nothing = hidden is None and (bool(scores.hidden) or any(may_be_infinite(step) for step in scores.added))
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


def _in_original_layout(attention: Attention, attended: fx.Node) -> fx.Node:
    """The output of the attention in the shape and axis order of the second product that it replaces."""
    scores, product = attention.scores, attention.product
    if len(scores.views) == 2:
        attended = _reshaped_to(attended, (*scores.views[1].sizes[:-1], product.right.shape[-1]))
    if product.order is None:
        return attended
    return attended.graph.call_method("permute", (attended, product.order))


def _reshaped_to(node: fx.Node, sizes: tuple[Any, ...]) -> fx.Node:
    return node.graph.call_method("reshape", (node, *sizes))
