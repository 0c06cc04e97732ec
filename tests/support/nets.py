"""Models of one to three inputs, written as a function of their modules."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class OneInput(nn.Module):
    """Computes ``function(self, x)``."""

    def __init__(self, function: Callable[..., Any], modules: dict[str, Any]) -> None:
        super().__init__()
        for name, value in modules.items():
            setattr(self, name, value)
        self._function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self._function(self, x)


class TwoInputs(OneInput):
    """Computes ``function(self, x, y)``."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        return self._function(self, x, y)


class ThreeInputs(OneInput):
    """Computes ``function(self, x, y, z)``."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        return self._function(self, x, y, z)


def net(function: Callable[..., Any], **modules: Any) -> nn.Module:
    """A model in evaluation mode whose ``forward`` is ``function``, with the given modules and parameters as its own.

    Every parameter and every running statistic gets a random value of its own, from seed 0, so that no two are equal
    by accident and no batch norm is the identity.
    """
    inputs = len(inspect.signature(function).parameters) - 1
    model = (OneInput, TwoInputs, ThreeInputs)[inputs - 1](function, modules)
    return scrambled(model).eval()


def scrambled(model: nn.Module, seed: int = 0) -> nn.Module:
    """``model``, with random parameters and running statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + 0.1)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return model


def random_input(*shape: int, seed: int = 1) -> torch.Tensor:
    """A standard normal tensor, the same for the same seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
