"""Small networks on which the whole pipeline of a backend is tried, each the same whenever it is made."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.exclusive import random_numbers_kept
from embedl_deploy.patterns import Example
from embedl_deploy.testing.tensors import with_distinct_weights


def _conv(channels: int, out: int, size: int = 3, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps height and width, and a batch norm."""
    return [nn.Conv2d(channels, out, size, padding=size // 2, groups=groups, bias=False), nn.BatchNorm2d(out)]


class _Residual(nn.Module):
    """``act(x + body(x))``; without an activation ``x + body(x)``."""

    def __init__(self, body: nn.Module, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        y = self.body(x) + x
        return y if self.act is None else self.act(y)  # type: ignore[no-any-return]  # modules are untyped callables


class _Encoder(nn.Module):
    """A transformer's encoder layer with norms first, and a classifier over the mean of the sequence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.between = nn.LayerNorm(width)
        self.wide, self.act, self.narrow = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, S, E) to (B, 4)."""
        y = self.before(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.narrow(self.act(self.wide(self.between(x))))
        return self.head(x.mean(dim=1))  # type: ignore[no-any-return]  # as above


class _Functional(nn.Module):
    """Parameters of its own, and calls of functions and methods where others have modules."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 4, 3, 3) * 0.2)
        self.bias = nn.Parameter(torch.randn(8) * 0.1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Parameter(torch.randn(4, 8) * 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 4, H, W) to (N, 4)."""
        y = F.relu(F.conv2d(x, self.weight, self.bias, padding=1))
        y = torch.add(y, self.conv(y)).relu()
        y = F.adaptive_avg_pool2d(F.max_pool2d(y, 2), 1)
        return F.linear(y.flatten(1), self.out)


def _plain() -> nn.Module:
    return nn.Sequential(
        *(*_conv(3, 8), nn.ReLU(), nn.MaxPool2d(2), *_conv(8, 8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )


def _residual() -> nn.Module:
    block = nn.Sequential(*_conv(8, 8), nn.ReLU(), *_conv(8, 8))
    return nn.Sequential(*_conv(3, 8), nn.ReLU(), _Residual(block, nn.ReLU()), nn.Conv2d(8, 4, 1))


def _depthwise() -> nn.Module:
    block = nn.Sequential(*_conv(8, 16, 1), nn.ReLU6(), *_conv(16, 16, 3, 16), nn.ReLU6(), *_conv(16, 8, 1))
    return nn.Sequential(*_conv(4, 8), nn.ReLU6(), _Residual(block), nn.AvgPool2d(2), nn.Conv2d(8, 4, 1))


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))


def _make(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Example:
    """A network in evaluation mode and a batch, from seed 0; the random state is put back."""
    with random_numbers_kept():
        torch.manual_seed(0)
        return Example(with_distinct_weights(build()), (torch.randn(shape),))


#: By name, how each is made.
NETWORKS: dict[str, Callable[[], Example]] = {
    name: functools.partial(_make, build, shape)
    for name, build, shape in (
        ("plain convolutional network", _plain, (4, 3, 8, 8)),
        ("residual network", _residual, (4, 3, 8, 8)),
        ("depthwise network", _depthwise, (4, 4, 8, 8)),
        ("perceptron", _perceptron, (8, 16)),
        ("transformer encoder", lambda: _Encoder(8), (4, 6, 8)),
        ("functional network", _Functional, (4, 4, 8, 8)),
    )
}
