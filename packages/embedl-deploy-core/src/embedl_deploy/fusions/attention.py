"""Fusions of the parts that the attention conversions make."""

from typing import Any

import torch
from torch import nn

from embedl_deploy.modules import (
    FusedMHAInProjection,
    FusedScaledDotProductAttention,
    FusedSwinAttention,
    MHAInProjection,
    ScaledDotProductAttention,
    SwinAttention,
)
from embedl_deploy.patterns import Applied, Example, Pattern, QDQPoint


def _apply(attention: nn.Module, *heads: torch.Tensor) -> Any:
    return attention(*heads)


class _Bias(nn.Module):
    """A bias for the relative positions of five tokens, (1, 2, 5, 5), for examples."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.randn(1, 2, 5, 5))

    def forward(self) -> torch.Tensor:
        """The bias."""
        return self.bias


def _attend_with_bias(attention: nn.Module, bias: nn.Module, *heads: torch.Tensor) -> Any:
    return attention(*heads, bias())


class MHAInProjectionPattern(Pattern):
    """``MHAInProjection``: one matrix product for queries, keys and values."""

    tree = (MHAInProjection,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedMHAInProjection

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(MHAInProjection(nn.Linear(8, 24), 2)), (torch.randn(2, 5, 8),)),
            Example(
                nn.Sequential(MHAInProjection(nn.Linear(8, 24), 2, zero_key_bias=True)),
                (torch.randn(2, 5, 8),),
                "as in Swin V2",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(
                nn.Sequential(nn.Linear(8, 24)), (torch.randn(2, 5, 8),), "not known to be a projection of attention"
            ),
        ]


class ScaledDotProductAttentionPattern(Pattern):
    """``ScaledDotProductAttention``: three inputs, each with a quantizer of its own."""

    tree = (ScaledDotProductAttention,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.KEY_INPUT, QDQPoint.VALUE_INPUT})
    graft = FusedScaledDotProductAttention

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(Applied(_apply, ScaledDotProductAttention()), tuple(torch.randn(3, 2, 2, 5, 4))),
            Example(
                Applied(_apply, ScaledDotProductAttention(0.5)),
                tuple(torch.randn(3, 2, 2, 5, 4)),
                "with dropout",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(
                Applied(nn.functional.scaled_dot_product_attention),
                tuple(torch.randn(3, 2, 2, 5, 4)),
                "torch's function, which a conversion makes a module of first",
            ),
        ]


class SwinAttentionPattern(Pattern):
    """``SwinAttention``: only the softmax inside has a quantization point."""

    tree = (SwinAttention,)
    qdq_points = frozenset()
    graft = FusedSwinAttention

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(Applied(_attend_with_bias, SwinAttention(), _Bias()), tuple(torch.randn(3, 2, 2, 5, 4))),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(
                Applied(_apply, ScaledDotProductAttention()),
                tuple(torch.randn(3, 2, 2, 5, 4)),
                "no bias for relative positions",
            ),
        ]
