"""A squeeze-and-excitation as one kernel, whose two convolutions have a weight each; written in two ways."""

import operator

import torch
from torch import nn

from embedl_deploy.modules import FusedConv, FusedModule, QuantStub, WeightFakeQuantize
from embedl_deploy.patterns import Example, Fork, Pattern, QDQPoint, Wildcard


class SqueezeExcite(nn.Module):
    """A convolution with batch norm and ReLU, then y · σ(expand(act(reduce(mean(y)))))."""

    def __init__(self, channels: int = 8, *, norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.norm = nn.Conv2d(channels, 4, 1), nn.BatchNorm2d(4) if norm else None
        self.act, self.expand, self.gate = nn.ReLU(), nn.Conv2d(4, channels, 1), nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, C, H, W)."""
        y = self.stem(x)
        reduced = self.reduce(self.pool(y))
        if self.norm is not None:
            reduced = self.norm(reduced)
        return y * self.gate(self.expand(self.act(reduced)))


class ConvAct(FusedConv):
    """Convolution, optional batch norm, ReLU."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, act: nn.Module) -> None:
        super().__init__(conv, bn)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.convolve(x))

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        self.scale_convolution(factors)
        return None


class NestedSE(FusedModule):
    """Of parts that are fused modules."""

    inputs_to_quantize = frozenset({0, 1})

    def __init__(
        self,
        pool: nn.Module,
        reduce: nn.Conv2d,
        norm: nn.BatchNorm2d | None,
        act: nn.Module,
        expand: nn.Conv2d,
        gate: nn.Module,
    ) -> None:
        super().__init__()
        self.pool, self.gate = pool, gate
        self.reduce, self.expand = ConvAct(reduce, norm, act), FusedConv(expand)
        self.pooled_quant, self.reduced_quant = QuantStub(), QuantStub()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        pooled = self.pooled_quant(self.pool(x))
        return y * self.gate(self.expand(self.reduced_quant(self.reduce(pooled))))


class PlainSE(FusedModule):
    """Of the convolutions themselves, with places of its own for their weights' quantizers."""

    inputs_to_quantize = frozenset({0, 1})

    def __init__(
        self, pool: nn.Module, reduce: nn.Conv2d, norm: None, act: nn.Module, expand: nn.Conv2d, gate: nn.Module
    ) -> None:
        super().__init__()
        self.pool, self.reduce, self.act, self.expand, self.gate = pool, reduce, act, expand, gate
        self.reduce_weight_fake_quant, self.expand_weight_fake_quant = WeightFakeQuantize(), WeightFakeQuantize()
        self.pooled_quant, self.reduced_quant = QuantStub(), QuantStub()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        reduced = self._convolved(self.reduce, self.reduce_weight_fake_quant, self.pooled_quant(self.pool(x)))
        reduced = self.reduced_quant(self.act(reduced))
        return y * self.gate(self._convolved(self.expand, self.expand_weight_fake_quant, reduced))

    def _convolved(self, conv: nn.Conv2d, stub: WeightFakeQuantize, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, stub(conv.weight), conv.bias) if stub.enabled else conv(x)


_CHAIN = (nn.AdaptiveAvgPool2d, nn.Conv2d, Wildcard(nn.BatchNorm2d, max_count=1), nn.ReLU, nn.Conv2d, nn.Sigmoid)


class NestedSEPattern(Pattern):
    tree = (Fork(operator.mul, _CHAIN, ()),)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})
    graft = NestedSE

    def examples(self) -> list[Example]:
        return [Example(SqueezeExcite().eval(), (torch.randn(2, 3, 8, 8),))]

    def near_misses(self) -> list[Example]:
        return [Example(nn.Sequential(nn.Conv2d(3, 4, 1)), (torch.randn(2, 3, 8, 8),), "no product")]


class PlainSEPattern(NestedSEPattern):
    graft = PlainSE


class ConvActPattern(Pattern):
    tree = (nn.Conv2d, Wildcard(nn.BatchNorm2d, max_count=1), nn.ReLU)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = ConvAct
