"""A small backend that keeps everything the kit asks, to be spoilt in one thing at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.backend import Backend, BackendInfo
from embedl_deploy.modules import FusedConv, FusedModule
from embedl_deploy.patterns import Example, Pattern, QDQPoint, get_module

INFO = BackendInfo("Acme NPU", "Runs blocks.")


class Block(FusedConv):
    """Convolution, batch norm, ReLU."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d, act: nn.ReLU) -> None:
        super().__init__(conv, bn)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.convolve(x))


def block(act: nn.Module) -> list[nn.Module]:
    return [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), act]


class BlockPattern(Pattern):
    """Fuses a block; everything about it is as it should be."""

    tree = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = Block

    def examples(self) -> Sequence[Example]:
        return [Example(nn.Sequential(*block(nn.ReLU())), (torch.randn(2, 4, 6, 6),), "a block")]

    def near_misses(self) -> Sequence[Example]:
        return [Example(nn.Sequential(*block(nn.Tanh())), (torch.randn(2, 4, 6, 6),), "another activation")]


class WrongInEvaluation(Block):
    """Right in training mode only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (1.0 if self.training else 1.001)


class Around(FusedModule):
    """A module in another: what ``Again`` takes again."""

    inputs_to_quantize = frozenset({0})
    why_not_quantized = "the weight is that of the module inside"

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


def is_linear_or_around(node: fx.Node) -> bool:
    return isinstance(get_module(node), (nn.Linear, Around))


class Again(Pattern):
    """Matches its own result."""

    tree = (is_linear_or_around,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = Around

    def examples(self) -> Sequence[Example]:
        return [Example(nn.Sequential(nn.Linear(6, 6)), (torch.randn(2, 6),))]

    def near_misses(self) -> Sequence[Example]:
        return [Example(nn.Sequential(nn.ReLU()), (torch.randn(2, 6),), "no product")]


def with_graft(module: type[nn.Module]) -> type[Pattern]:
    """The good pattern with another module, of the module's name."""
    return type(f"{module.__name__}Pattern", (BlockPattern,), {"graft": module})


def make_backend(*patterns: Pattern, **more: Any) -> Backend:
    """A backend that was not loaded from a plugin."""
    given = {"name": "acme", "info": INFO, "origin": "acme 1.0", "conversions": (), "leaf_modules": (), **more}
    return Backend(fusions=patterns, **given)
