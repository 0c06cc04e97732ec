"""Fusions of activations that the runtime computes on integers."""

from torch import nn

from embedl_deploy.patterns import Example, Pattern, QDQPoint
from embedl_deploy_onnxruntime.modules import (
    OrtHardsigmoid,
    OrtHardswish,
    OrtSiLU,
    OrtTabledActivation,
    Tabled,
)
from embedl_deploy_onnxruntime.patterns.examples import maps

_BOTH_SIDES = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})


class TabledActivationPattern(Pattern):
    """``Sigmoid`` or ``LeakyReLU``."""

    tree = (Tabled,)
    qdq_points = _BOTH_SIDES
    graft = OrtTabledActivation

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.Conv2d(4, 8, 3), nn.LeakyReLU(0.1)), maps(), "after a convolution"),
            Example(nn.Sequential(nn.Conv2d(4, 8, 1), nn.Sigmoid()), maps(), "a gate"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [Example(nn.Sequential(nn.Tanh()), maps(), "the runtime has no table for it")]


class SiLUPattern(Pattern):
    """``SiLU``."""

    tree = (nn.SiLU,)
    qdq_points = _BOTH_SIDES
    graft = OrtSiLU

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [Example(nn.Sequential(nn.Conv2d(4, 8, 3), nn.SiLU()), maps(), "as in EfficientNet")]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [Example(nn.Sequential(nn.Conv2d(4, 8, 3), nn.GELU()), maps(), "no integer kernel")]


class HardswishPattern(Pattern):
    """``Hardswish``."""

    tree = (nn.Hardswish,)
    qdq_points = _BOTH_SIDES
    graft = OrtHardswish

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [Example(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Hardswish()), maps(), "as in MobileNetV3")]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [Example(nn.Sequential(nn.Conv2d(4, 8, 3), nn.Mish()), maps(), "no integer kernel")]


class HardsigmoidPattern(Pattern):
    """``Hardsigmoid``."""

    tree = (nn.Hardsigmoid,)
    qdq_points = _BOTH_SIDES
    graft = OrtHardsigmoid

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [Example(nn.Sequential(nn.Conv2d(4, 8, 1), nn.Hardsigmoid()), maps(), "a gate")]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [Example(nn.Sequential(nn.Conv2d(4, 8, 1), nn.Tanh()), maps(), "another curve")]
