"""Reads the parts of written-out attention: the scores, their softmax, and the product with the values."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from embedl_deploy.graph.casts import CASTS
from embedl_deploy.graph.fixed_sizes import size_is_fixed
from embedl_deploy.graph.lookup import get_module, has_hooks
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import SAME, VIEWS, operation
from embedl_deploy.recomposition.attention_masks import has_the_batch
from embedl_deploy.recomposition.products import Product, orientations, product_of, swapped_source
from embedl_deploy.recomposition.score_reading import cast_of, scores_of, sizes_of
from embedl_deploy.recomposition.scores import NoScoresError, Scores, View
from embedl_deploy.recomposition.softmax import softmax_input


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


def way_to_product(softmax: fx.Node) -> tuple[tuple[fx.Node, ...], Product] | None:
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
    """The readers of a value, also those after casts, dropout, views and, last of all, a swap of rows and columns."""
    for user in node.users:
        yield passed, user
        if user.args and user.args[0] is node:
            if _passes(user):
                yield from _ways(user, (*passed, user))
            elif _is_swap(user):
                yield from (((*passed, user), reader) for reader in user.users)


def _passes(node: fx.Node) -> bool:
    return operation(node) in CASTS | SAME | VIEWS or isinstance(get_module(node), nn.Dropout)


def read_attention(softmax: fx.Node, after: tuple[fx.Node, ...], product: Product) -> Attention:
    """Read an attention.

    Raises:
        NoScoresError: Something in it has no place in the module.
    """
    taken = softmax_input(softmax)
    assert taken is not None
    if product.added is not None or product.factor != 1.0:
        raise NoScoresError(f"{product.node.name} does more than to weigh the values: it adds to them, or scales them")
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


def may_be_for_keys(scores: Scores) -> str | None:
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
        if has_the_batch(mask, scores):
            continue
        shape = shape_of(mask) or ()
        own = len(shape) - next((i for i, size in enumerate(shape) if size != 1), len(shape))
        if own > common or len(shape) > len(view.shape):
            raise NoScoresError(
                f"{mask.name} has the axes of the scores before {scores.nodes[0].name} is seen in another way"
            )
