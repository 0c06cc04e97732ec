"""The simplest quantizer, for tests of the places where quantizers stand."""

import torch
from torch import nn


class RoundTo(nn.Module):
    """Rounds to multiples of a step, and counts how often it was called."""

    def __init__(self, step: float = 0.5) -> None:
        super().__init__()
        self.step = step
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.round(x)

    def round(self, x: torch.Tensor) -> torch.Tensor:
        """What it computes, not counted."""
        return torch.round(x / self.step) * self.step
