"""Modules for the examples of patterns, where ``nn.Sequential`` is not enough."""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Joined(nn.Module):
    """``after(join(body(x), x))``: a residual block, by default with a sum."""

    def __init__(
        self, body: nn.Module, after: nn.Module | None = None, join: Callable[..., torch.Tensor] = operator.add
    ) -> None:
        super().__init__()
        self.body = body
        self.after = after
        self.join = join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor of the shape that ``body`` keeps, to the same shape."""
        y = self.join(self.body(x), x)
        if self.after is not None:
            y = self.after(y)
        return y


def conv_bn(channels: int, out: int, size: int = 3, **settings: Any) -> list[nn.Module]:
    """A convolution that keeps height and width, and a batch norm."""
    return [nn.Conv2d(channels, out, size, padding=size // 2, **settings), nn.BatchNorm2d(out)]
