"""Inputs and modules for the examples of patterns."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def maps() -> tuple[torch.Tensor]:
    """(N, 4, H, W)."""
    return (torch.randn(2, 4, 8, 8),)


def sequences(width: int = 8) -> tuple[torch.Tensor]:
    """(B, ``width``, 8)."""
    return (torch.randn(2, width, 8),)


class Tapped(nn.Module):
    """``rest(first(x))``, and ``first(x)`` as a second output: a value that is needed elsewhere."""

    def __init__(self, first: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.rest = rest

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Any tensor, to both values."""
        y = self.first(x)
        return self.rest(y), y


class Function(nn.Module):
    """A function of the inputs and of sub-modules, which it gets in front."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, *x: torch.Tensor) -> Any:
        """``function(*parts, *x)``."""
        return self.function(*self.parts, *x)
