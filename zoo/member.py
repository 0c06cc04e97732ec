"""A model of the zoo: a name, and how it is made with inputs for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Made:
    """A model, in evaluation mode, with random weights, and example inputs."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Member:
    """One model of a family.

    Attributes:
        name: Unique within the family.
        make: Makes it; called in a process of its own, at a fixed seed.
    """

    name: str
    make: Callable[[], Made]


def perturb_constants(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter and statistic that holds one value throughout some variation, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point() or tensor.numel() < 2 or not bool((tensor == tensor.flatten()[0]).all()):
                continue
            noise = torch.rand(tensor.shape, generator=generator).to(tensor) - 0.5
            if name.endswith("running_var") or float(tensor.flatten()[0]) == 1:
                tensor.add_(noise)  # 0.5 … 1.5: a variance, or the gain of a normalization
            else:
                tensor.add_(0.2 * noise)
