"""A product of two tensors that both flow in  becomes  one module with a place for a quantizer at each of them.

    weights @ values                                         FusedActivationProduct()(weights, values)
    torch.einsum("bhwc,hkc->bhwk", queries, positions)       FusedActivationProduct(bhwc,hkc->bhwk)(queries, positions)
    torch.baddbmm(bias, scores, values)                      FusedActivationProduct()(scores, values, bias)
    F.linear(x, made(y)), torch.inner(x, y)                  FusedActivationProduct(ab,cb->ac)(x, made(y))
    torch.tensordot(x, y, dims=2)                            FusedActivationProduct(abc,bcd->ad)(x, y)

A fusion: it comes after the conversions, one of which takes the products of an attention. One factor may be a table of
learned numbers.

Declined: products that are positions or angles, which have to be as precise as their author has them: of integers and
sizes, read by a sine, or cast to float32 by hand; a product that sums nothing; shapes or types that are not known.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from embedl_deploy.graph.carried import are_angles, carries_numbers, is_upcast
from embedl_deploy.graph.einsum import Equation, equation_of_axes, product_by_axes
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.products import BY_ONE_VECTOR
from embedl_deploy.graph.signatures import bind_call
from embedl_deploy.graph.state_values import is_state
from embedl_deploy.modules.activation_product import FusedActivationProduct
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.points import QDQPoint
from embedl_deploy.patterns.replacement import insert_call, replace_match

_WITH_SUM = {"baddbmm": ("batch1", "batch2"), "addmm": ("mat1", "mat2")}
_BY_AXES = frozenset({"einsum", "inner", "tensordot"})
_NAMES = frozenset({"matmul", "bmm", "mm", "mv", "linear", *_WITH_SUM, *_BY_AXES})


@dataclass(frozen=True)
class _Read:
    """A product: what is multiplied, what is added, and how."""

    left: fx.Node
    right: fx.Node
    equation: Equation | None = None
    added: fx.Node | None = None
    alpha: float = 1.0
    beta: float = 1.0

    def summed(self) -> int | None:
        """How many products are summed for a number of the result; ``None`` if it is not known."""
        shape = shape_of(self.left)
        if shape is None or shape_of(self.right) is None:
            return None
        if self.equation is None:
            return shape[-1] if shape else 1
        sizes = dict(zip(self.equation.left, shape, strict=True))
        count = 1
        for axis in self.equation.summed:
            count *= sizes[axis]
        return count


def _read(node: fx.Node) -> _Read | None:
    """What a node multiplies; ``None`` if it is not a product of two values of the graph."""
    name = str(operation(node))
    if name in _BY_AXES:
        by_axes = product_by_axes(node)
        return None if by_axes is None else _Read(*by_axes)
    bound = bind_call(node)
    values: dict[str, Any] = {} if bound is None else dict(bound.values)
    if values.pop("out", None) is not None or "out_dtype" in values:
        return None
    if name == "linear":
        return _read_linear(values)
    if name in _WITH_SUM:
        pair, factors = tuple(map(values.get, _WITH_SUM[name])), (values.get("alpha"), values.get("beta"))
        if not all(isinstance(each, (int, float)) for each in factors):
            return None
        alpha, beta, added = float(factors[0] or 0), float(factors[1] or 0), values.get("input")
    else:
        pair, alpha, beta, added = (*values.values(), None, None)[:2], 1.0, 1.0, None
    left, right = pair
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return None
    return _Read(left, right, None, added if isinstance(added, fx.Node) and beta else None, alpha, beta)


def _read_linear(values: dict[str, Any]) -> _Read | None:
    """A ``linear`` whose weight flows in."""
    left, right = values.get("input"), values.get("weight")
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return None
    shapes = shape_of(left), shape_of(right)
    if shapes[0] is None or shapes[1] is None or is_state(right) or len(shapes[1]) != 2:
        return None
    equation = equation_of_axes(shapes[0], shapes[1], ([-1], [-1]))
    return None if equation is None else _Read(left, right, equation, values.get("bias"))


def _is_product_of_activations(node: fx.Node) -> bool:
    """Whether a node multiplies two tensors, of which one at least is another in every call."""
    if operation(node) not in _NAMES:
        return False
    read = _read(node)
    return read is not None and not (is_state(read.left) and is_state(read.right))


class ActivationProductPattern(Pattern):
    """A product of two computed tensors: two inputs, each with its own quantizer."""

    tree = (_is_product_of_activations,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.KEY_INPUT})

    def examples(self) -> list[Example]:
        """Where it matches."""
        pair = (torch.randn(2, 3, 5, 4), torch.randn(2, 3, 4, 6))
        return [
            Example(_Multiplying(torch.matmul), pair),
            Example(
                _Multiplying(lambda x, y: torch.einsum("bhwc,bhck->bhwk", x, y)),
                pair,
                "einsum, over batches",
            ),
            Example(
                _Multiplying(lambda x, y: torch.einsum("bhwc,bhck->bwk", x, y)), pair, "a sum over two axes at once"
            ),
            Example(
                _Multiplying(_batched),
                pair,
                "with a sum",
            ),
            Example(_Multiplying(lambda x, y: F.linear(x, y[0, 0].mT)), pair, "a weight that flows in"),
            Example(_Multiplying(lambda x, y: torch.tensordot(x, y, ([1, 3], [1, 2]))), pair, "of the axes given"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        x, steps = torch.randn(2, 5, 4), torch.arange(20).reshape(1, 4, 5)
        return [
            Example(_Multiplying(lambda x, y: x @ y.float()), (x, steps), "positions"),
            Example(_Multiplying(lambda x, y: (x @ y).cos()), (x, torch.randn(2, 4, 3)), "angles"),
            Example(_Multiplying(lambda x, y: x.float() @ y.float()), (x, torch.randn(2, 4, 3)), "in float32 by hand"),
            Example(_Multiplying(lambda x, y: x[..., :1] @ y), (x, torch.randn(2, 1, 3)), "an outer product"),
            Example(_Multiplying(lambda x, y: torch.einsum("bnc,bnd->bncd", x, y)), (x, x), "a product for each pair"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Leave what has to be precise."""
        node = match.tree_match.last
        read = _read(node)
        assert read is not None  # the tree has looked
        return _why_not(node, read)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        read = _read(pattern_match.tree_match.last)
        assert read is not None  # it matched
        module = FusedActivationProduct(read.equation, alpha=read.alpha, beta=read.beta)
        inputs = [read.left, read.right, *([] if read.added is None else [read.added])]
        product = insert_call(pattern_match, module, inputs)
        replace_match(pattern_match, product)
        return [product]


def _why_not(node: fx.Node, read: _Read) -> str | None:
    dtypes, summed = {dtype_of(each) for each in (read.left, read.right)}, read.summed()
    if summed is None or None in dtypes:
        return "the shapes or types of what it multiplies are not known: give example inputs"
    if len(dtypes) > 1 or not all(dtype is not None and dtype.is_floating_point for dtype in dtypes):
        return f"it multiplies {' by '.join(sorted(map(str, dtypes)))}"
    if summed == 1:
        return "it sums nothing: each number of the result is one product"
    for each in (read.left, read.right):
        if is_state(each) and len(shape_of(each) or ()) == 1:
            return BY_ONE_VECTOR
        if not is_state(each) and not carries_numbers(each):
            return f"{each.name} holds positions or counts, which a quantizer would round"
        if is_upcast(each):
            return f"the model's author has {each.name} computed in float32"
    if are_angles(node):
        return "its result is used as angles, which must be precise"
    return None


def _batched(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x, y = x.flatten(0, 1), y.flatten(0, 1)
    return torch.baddbmm(y[:, :1], x, y, beta=0.5, alpha=2.0)


class _Multiplying(nn.Module):
    """A function of two tensors, for examples."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Any two that the function takes."""
        return self.function(x, y)
