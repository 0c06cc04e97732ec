"""permute(0, 2, 3, 1) → LayerNorm → permute(0, 3, 1, 2)  becomes  LayerNorm2d.

    x ─▶ channels last ─▶ LayerNorm over C ─▶ channels first        x ─▶ LayerNorm2d

The permutations are there because ``LayerNorm`` is over the last axes. A compiler that moves data for them, or cannot
merge the norm with the convolutions around them, is better off without.

Declined: other permutations; a norm over more than the channels; a value on the way that is used elsewhere.
"""

from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.forms.form import set_tensor
from embedl_deploy.graph.lookup import has_hooks, resolve_module
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.modules.norms import LayerNorm2d
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import insert_call, replace_match


def _axes(node: fx.Node) -> list[int]:
    """The order that a permutation gives to the axes; empty for what is none, or where it is not known."""
    name = operation(node)
    given: list[Any] = []
    for value in node.args[1:]:
        given += value if isinstance(value, (list, tuple)) else [value]
    if name not in ("permute", "transpose") or node.kwargs or not all(isinstance(axis, int) for axis in given):
        return []
    shape = shape_of(node)
    rank = len(shape) if shape is not None else len(given) if name == "permute" else None
    if rank is None:
        return []
    axes = [axis % rank for axis in given]
    if name == "permute":
        return axes
    order = list(range(rank))
    order[axes[0]], order[axes[1]] = axes[1], axes[0]
    return order


def moves_channels_last(node: fx.Node) -> bool:
    """Whether a node puts the second axis after the others."""
    axes = _axes(node)
    return len(axes) > 2 and axes == [0, *range(2, len(axes)), 1]


def moves_channels_first(node: fx.Node) -> bool:
    """Whether a node puts the last axis after the first."""
    axes = _axes(node)
    return len(axes) > 2 and axes == [0, len(axes) - 1, *range(1, len(axes) - 1)]


class _Between(nn.Module):
    """A module with permutations around it, for examples."""

    def __init__(self, inner: nn.Module, there: tuple[int, ...], back: tuple[int, ...]) -> None:
        super().__init__()
        self.inner, self.there, self.back = inner, there, back

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any tensor of as many axes."""
        y: torch.Tensor = self.inner(x.permute(self.there))
        return y.permute(self.back)


class PermutedLayerNormPattern(Pattern):
    """A ``LayerNorm`` over channels that permutations put last, as one module."""

    tree = (moves_channels_last, nn.LayerNorm, moves_channels_first)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        there, back = (0, 2, 3, 1), (0, 3, 1, 2)
        return [
            Example(_Between(nn.LayerNorm(6), there, back), (torch.randn(2, 6, 4, 3),)),
            Example(
                _Between(nn.LayerNorm(6, elementwise_affine=False), (0, 2, 1), (0, 2, 1)),
                (torch.randn(2, 6, 4),),
                "of a sequence, without weight",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        images = (torch.randn(2, 6, 4, 3),)
        return [
            Example(_Between(nn.LayerNorm(6), (0, 2, 3, 1), (0, 3, 2, 1)), images, "they come back in another order"),
            Example(_Between(nn.LayerNorm((3, 6)), (0, 2, 3, 1), (0, 3, 1, 2)), images, "over more than the channels"),
            Example(_Between(nn.Linear(6, 6), (0, 2, 3, 1), (0, 3, 1, 2)), images, "another layer"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take a norm over the channels alone, in its input's type."""
        node = match.tree_match.get_node(1)
        norm = resolve_module(node, nn.LayerNorm)
        if len(norm.normalized_shape) != 1:
            return f"it is over the axes {norm.normalized_shape}"
        if getattr(norm, "upcast", None) is not None:
            return "it is computed in another type than that of its input"
        if node.op == "call_module" and has_hooks(norm):
            return f"hooks on {node.name} would be lost"
        weight, dtype = norm.weight, dtype_of(node)
        if weight is not None and dtype not in (None, weight.dtype):
            return f"its weight is {weight.dtype}, and what it gives {dtype}"
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        norm = resolve_module(pattern_match.tree_match.get_node(1), nn.LayerNorm)
        module = LayerNorm2d(norm.normalized_shape[0], norm.eps, elementwise_affine=False)
        set_tensor(module, "weight", norm.weight)
        set_tensor(module, "bias", norm.bias)
        source = pattern_match.tree_match.get_node(0).all_input_nodes[0]
        call = insert_call(pattern_match, module, [source], home=pattern_match.tree_match.get_node(1))
        replace_match(pattern_match, call)
        return [call]
