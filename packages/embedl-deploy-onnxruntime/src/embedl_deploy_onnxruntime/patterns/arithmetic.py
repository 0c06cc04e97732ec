"""Fusions of sums and products of two tensors."""

import operator

import torch
from torch import fx, nn

from embedl_deploy.patterns import Applied, Example, Fork, Pattern, PatternMatch, QDQPoint, Wildcard, dtype_of
from embedl_deploy_onnxruntime.modules import OrtAdd, OrtMul, Rectifier
from embedl_deploy_onnxruntime.patterns.examples import maps


def _why_not_two_tensors(node: fx.Node) -> str | None:
    """Why the runtime has no integer kernel for a sum or product."""
    operands = [argument for argument in node.args[:2] if isinstance(argument, fx.Node)]
    if len(operands) < 2 or len(node.args) > 2 or node.kwargs:
        return "one of the two is a number"
    types = [dtype_of(operand) for operand in operands]
    if not all(dtype is not None and dtype.is_floating_point for dtype in types):
        return "it is not known to be of two tensors of floating-point numbers: pass example inputs, args="
    return None


class AddPattern(Pattern):
    """``x + y → [ReLU or ReLU6]``."""

    tree = (Fork(operator.add, (), ()), Wildcard(Rectifier, max_count=1))
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT, QDQPoint.OUTPUT})
    graft = OrtAdd

    def check(self, match: PatternMatch) -> str | None:
        """Take a sum of two tensors of floating-point numbers."""
        return _why_not_two_tensors(match.tree_match.get_node(0))

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(Applied(lambda conv, x: torch.relu(conv(x) + x), nn.Conv2d(4, 4, 1)), maps(), "with a ReLU"),
            Example(Applied(lambda conv, x: x + conv(x), nn.Conv2d(4, 4, 1)), maps(), "a sum alone"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(Applied(lambda x: x + 1.5), maps(), "adds a number"),
            Example(Applied(lambda conv, x: conv(x) - x, nn.Conv2d(4, 4, 1)), maps(), "a difference"),
        ]


class MulPattern(Pattern):
    """``x · y``."""

    tree = (Fork(operator.mul, (), ()),)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT, QDQPoint.OUTPUT})
    graft = OrtMul

    def check(self, match: PatternMatch) -> str | None:
        """Take a product of two tensors of floating-point numbers."""
        return _why_not_two_tensors(match.tree_match.get_node(0))

    def examples(self) -> list[Example]:
        """Where it matches."""
        gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
        return [Example(Applied(lambda gate, x: x * gate(x), gate), maps(), "channels by a gate")]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(Applied(lambda x: x * 2), maps(), "by a number"),
            Example(Applied(lambda conv, x: conv(x) / x, nn.Conv2d(4, 4, 1)), maps(), "a quotient"),
        ]
