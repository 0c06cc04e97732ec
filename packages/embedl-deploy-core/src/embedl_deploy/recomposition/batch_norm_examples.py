"""Scales and shifts of channels behind a convolution, as authors write them, and what only looks like such."""

import torch
from torch import nn

from embedl_deploy.patterns.example_modules import Applied
from embedl_deploy.patterns.examples import Example


def examples() -> list[Example]:
    """Small models with one each."""
    maps = (torch.randn(2, 4, 8, 8),)
    return [
        Example(nn.Sequential(nn.Conv2d(4, 4, 1), _Frozen(), nn.ReLU()), maps, "as in detectors"),
        Example(nn.Sequential(nn.Conv2d(4, 4, 1), _Standardized()), maps, "by mean and deviation"),
        Example(nn.Sequential(nn.Conv2d(4, 4, 1), _Gain((4, 1, 1))), maps, "LayerScale"),
        Example(nn.Sequential(nn.Conv1d(4, 4, 3), _Gain((1, 4, 1)), nn.ReLU()), (torch.randn(2, 4, 8),), "sequences"),
    ]


def near_misses() -> list[Example]:
    """Small models without."""
    maps = (torch.randn(2, 4, 8, 8),)
    return [
        Example(nn.Sequential(nn.ReLU(), _Gain((4, 1, 1))), maps, "no convolution"),
        Example(nn.Sequential(nn.Conv2d(4, 4, 1), _Gain((8,))), maps, "of columns"),
        Example(nn.Sequential(nn.Conv2d(4, 4, 1), Applied(lambda x: x * 2 + 1)), maps, "numbers"),
        Example(Applied(_of_two_readers, nn.Conv2d(4, 4, 1), _Gain((4, 1, 1))), maps, "read elsewhere"),
    ]


def _of_two_readers(conv: nn.Module, gain: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y = conv(x)
    result: torch.Tensor = gain(y) + y.relu()
    return result


class _Frozen(nn.Module):
    """Batch norm with fixed statistics, as detectors write it, for examples."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4) + 0.5, requires_grad=False)
        self.bias = nn.Parameter(torch.randn(4), requires_grad=False)
        self.running_mean = nn.Parameter(torch.randn(4), requires_grad=False)
        self.running_var = nn.Parameter(torch.rand(4) + 0.5, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The map, normalized by running statistics."""
        weight, bias, mean, var = (
            tensor.reshape(1, -1, 1, 1) for tensor in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight * (var + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class _Standardized(nn.Module):
    """A mean taken off, and what is left divided by a deviation, for examples."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(4, 1, 1), requires_grad=False)
        self.std = nn.Parameter(torch.rand(4, 1, 1) + 0.5, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The map, standardized."""
        return (x - self.mean) / self.std


class _Gain(nn.Module):
    """A factor of each channel, that is trained, for examples."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(shape) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The map, scaled."""
        return x * self.gamma
