"""Norms, each alone: no quantizers, see :mod:`embedl_deploy.modules.fused_norms`."""

import torch
from torch import nn

from embedl_deploy.modules import (
    FusedLayerNorm,
    FusedLayerNorm2d,
    FusedRMSNorm,
    LayerNorm2d,
    RMSNorm2d,
    WrittenRMSNorm,
)
from embedl_deploy.patterns import Example, Pattern


def _vectors() -> tuple[torch.Tensor]:
    """(N, 8), for examples."""
    return (torch.randn(4, 8),)


def _maps() -> tuple[torch.Tensor]:
    """(N, 6, H, W), for examples."""
    return (torch.randn(2, 6, 4, 3),)


class LayerNormPattern(Pattern):
    """``LayerNorm``."""

    tree = (nn.LayerNorm,)
    qdq_points = frozenset()
    graft = FusedLayerNorm

    def examples(self) -> list[Example]:
        """Where it matches."""
        sequences = (torch.randn(2, 5, 8),)
        return [
            Example(nn.Sequential(nn.LayerNorm(8)), _vectors()),
            Example(nn.Sequential(nn.LayerNorm((5, 8), elementwise_affine=False)), sequences, "no weight"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.RMSNorm(8)), _vectors(), "no mean is taken off"),
            Example(nn.Sequential(nn.GroupNorm(2, 8)), _vectors(), "another norm"),
        ]


class RMSNormPattern(Pattern):
    """``RMSNorm``."""

    tree = (nn.RMSNorm,)
    qdq_points = frozenset()
    graft = FusedRMSNorm

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.RMSNorm(8)), _vectors()),
            Example(nn.Sequential(WrittenRMSNorm((8,), 1e-6)), _vectors(), "in float32"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [Example(nn.Sequential(nn.LayerNorm(8)), _vectors(), "the mean is taken off")]


class LayerNorm2dPattern(Pattern):
    """``LayerNorm2d`` or ``RMSNorm2d``."""

    tree = ((LayerNorm2d, RMSNorm2d),)
    qdq_points = frozenset()
    graft = FusedLayerNorm2d

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(LayerNorm2d(6)), _maps()),
            Example(nn.Sequential(RMSNorm2d(6)), _maps(), "no mean is taken off"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [Example(nn.Sequential(nn.GroupNorm(1, 6)), _maps(), "over the positions, too")]
