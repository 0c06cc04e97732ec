"""Modules for the examples of patterns, where ``nn.Sequential`` is not enough."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from embedl_deploy.validation.checked import checked


class Applied(nn.Module):
    """A function of sub-modules, which it gets in front, and of the inputs.

    Args:
        function: Called with the parts, then the inputs.
        *parts: Sub-modules.
    """

    @checked
    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        """``function(*parts, *inputs)``."""
        return self.function(*self.parts, *inputs)


class Tapped(nn.Module):
    """``rest(first(x))``, and ``first(x)`` as a second output: a value that is needed elsewhere.

    Args:
        first: Gives that value.
        rest: Takes it.
    """

    @checked
    def __init__(self, first: nn.Module, rest: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.rest = rest

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Any tensor, to both values."""
        y = self.first(x)
        return self.rest(y), y
