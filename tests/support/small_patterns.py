"""Patterns and modules that tests of the core use, so that they need no backend."""

import operator

import torch
from torch import nn

from embedl_deploy.modules import ActivationLike, FusedModule
from embedl_deploy.patterns import Fork, Pattern, QDQPoint, Wildcard


class FusedChain(FusedModule):
    """Modules called one after the other."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, *parts: nn.Module | None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part for part in parts if part is not None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x)
        return x


class FusedSum(FusedModule):
    """Modules called one after the other on the first input, then a sum and an activation."""

    inputs_to_quantize = frozenset({0, 1})

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        *before, self.act = parts
        self.before = nn.ModuleList(before)

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        for part in self.before:
            x = part(x)
        return self.act(x + residual)


class ConvBNActPattern(Pattern):
    tree = (nn.Conv2d, Wildcard(nn.BatchNorm2d, max_count=1), ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedChain


class ConvPattern(Pattern):
    tree = (nn.Conv2d, Wildcard(nn.BatchNorm2d, max_count=1))
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedChain


class ConvAddActPattern(Pattern):
    tree = (Fork(operator.add, (nn.Conv2d, nn.BatchNorm2d), ()), ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})
    graft = FusedSum


PATTERNS = [ConvAddActPattern(), ConvBNActPattern(), ConvPattern()]
