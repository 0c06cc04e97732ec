"""Small patterns that tests share, so that those of the core need no backend. Their modules can be quantized."""

import operator

import torch
from torch import nn

from embedl_deploy.modules import ActivationLike, FusedConv, FusedMatmul, FusedModule, QuantStub
from embedl_deploy.patterns import Fork, Pattern, QDQPoint, Wildcard


class FusedChain(FusedModule):
    """Modules called one after the other."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, *parts: nn.Module | None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(part for part in parts if part is not None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts:
            x = part(x)
        return x


class QConv(FusedConv):
    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None, act: nn.Module | None = None) -> None:
        super().__init__(conv, bn)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.convolve(x)
        return y if self.act is None else self.act(y)


class QConvAdd(QConv):
    inputs_to_quantize = frozenset({0, 1})

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self.act(self.convolve(x) + residual)


class QLinear(FusedMatmul):
    inputs_to_quantize = frozenset({0})

    def __init__(self, linear: nn.Linear, act: nn.Module | None = None) -> None:
        super().__init__(linear)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(x)
        return y if self.act is None else self.act(y)


class QPool(FusedModule):
    inputs_to_quantize = frozenset({0})

    def __init__(self, pool: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(x)


class QSigmoid(FusedModule):
    """Has a place inside, of a range that is known."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, sigmoid: nn.Sigmoid) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.gate_quant = QuantStub(amax=1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate_quant(self.sigmoid(x))


class ConvAddActPattern(Pattern):
    tree = (Fork(operator.add, (nn.Conv2d, nn.BatchNorm2d), ()), ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})
    graft = QConvAdd


class ConvBNActPattern(Pattern):
    tree = (nn.Conv2d, Wildcard(nn.BatchNorm2d, max_count=1), ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = QConv


class ConvPattern(Pattern):
    tree = (nn.Conv2d, Wildcard(nn.BatchNorm2d, max_count=1))
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = QConv


class LinearActPattern(Pattern):
    tree = (nn.Linear, ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = QLinear


class LinearPattern(Pattern):
    tree = (nn.Linear,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = QLinear


class PoolPattern(Pattern):
    tree = (nn.AdaptiveAvgPool2d,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = QPool


class SigmoidPattern(Pattern):
    tree = (nn.Sigmoid,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = QSigmoid


#: Convolutions and sums.
PATTERNS = [ConvAddActPattern(), ConvBNActPattern(), ConvPattern()]
#: One for each place that a quantizer may stand at.
QUANTIZABLE = [*PATTERNS, LinearActPattern(), LinearPattern(), PoolPattern(), SigmoidPattern()]
