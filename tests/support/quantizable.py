"""Patterns whose modules can be quantized, and small models of them, so that tests of the core need no backend."""

import operator
from typing import Any

import torch
from torch import nn

from embedl_deploy import TransformationResult, transform
from embedl_deploy.modules import ActivationLike, FusedConv, FusedMatmul, FusedModule, QuantStub
from embedl_deploy.patterns import Fork, Pattern, QDQPoint, Wildcard
from embedl_deploy.quantize import QuantConfig, Quantizer, insert_qdq
from support.nets import net, random_input


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


class ConvActPattern(Pattern):
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


PATTERNS = [
    ConvAddActPattern(),
    ConvActPattern(),
    ConvPattern(),
    LinearActPattern(),
    LinearPattern(),
    PoolPattern(),
    SigmoidPattern(),
]


def residual_block() -> nn.Module:
    """A block with a downsampling shortcut, pooling and a classifier: 3 channels to 5 classes."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.down_bn(self.down(x))
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)) + shortcut)
        return self.fc(self.pool(y).flatten(1))

    return net(
        forward,
        conv1=nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        bn1=nn.BatchNorm2d(8),
        conv2=nn.Conv2d(8, 8, 3, padding=1),
        bn2=nn.BatchNorm2d(8),
        down=nn.Conv2d(3, 8, 1, stride=2, bias=False),
        down_bn=nn.BatchNorm2d(8),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        fc=nn.Linear(8, 5),
    )


def perceptron(features: int = 12, hidden: int = 16) -> nn.Module:
    """Two matrix products with a ReLU between them; 4 outputs."""
    return net(
        lambda self, x: self.second(torch.relu(self.first(x))),
        first=nn.Linear(features, hidden),
        second=nn.Linear(hidden, 4),
    )


#: For :func:`residual_block`.
IMAGES = random_input(4, 3, 8, 8)
#: For :func:`perceptron`.
ROWS = random_input(6, 12)


def fused(model: nn.Module, *args: torch.Tensor) -> TransformationResult:
    """Transform with the patterns of this file."""
    return transform(model, args or None, patterns=PATTERNS)


def inserted(model: nn.Module, config: QuantConfig | None = None) -> Any:
    """Transformed, with quantizers that have no scales yet."""
    result = fused(model)
    return insert_qdq(result.model, result.matches, config)


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the state."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states hold the same names and bits; NaN, as of a scale that is not known, equals itself."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name].nan_to_num(7.5), b[name].nan_to_num(7.5)) for name in a
    )


def scales_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The scales of all quantizers, by path."""
    return {name: part.scale.detach().clone() for name, part in model.named_modules() if isinstance(part, Quantizer)}
