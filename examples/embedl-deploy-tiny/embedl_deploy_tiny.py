"""A whole backend in one file: a conversion, two fusions with modules of their own, a policy and a rule for files."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.artifact import fixed_sizes_of, input_of
from embedl_deploy.backend import BackendInfo, QuantPoint, QuantPolicy, Rule, Severity, Undecided, Violation, hookimpl
from embedl_deploy.modules import FusedConv, FusedMatmul
from embedl_deploy.patterns import Example, Pattern, PatternMatch, QDQPoint, Wildcard, get_module, replace_tree


def is_unbounded(node: fx.Node) -> bool:
    module = get_module(node)
    return isinstance(module, nn.Hardtanh) and (module.min_val, module.max_val) == (0, float("inf"))


class HardtanhToReLUPattern(Pattern):
    """``Hardtanh(0, ∞)`` becomes the ReLU that it is, so that a fusion can take it."""

    tree = (is_unbounded,)
    is_conversion = True

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        return replace_tree(pattern_match, [nn.ReLU()])

    def examples(self) -> list[Example]:
        return [Example(nn.Sequential(nn.Hardtanh(0, float("inf"))), (torch.randn(2, 4),), "no upper bound")]

    def near_misses(self) -> list[Example]:
        return [Example(nn.Sequential(nn.Hardtanh(0, 6)), (torch.randn(2, 4),), "this is a ReLU6")]


class TinyConv(FusedConv):
    """``Conv2d → [BatchNorm2d] → [ReLU]``."""

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, relu: nn.ReLU | None) -> None:
        super().__init__(conv, bn)
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolve(x) if self.relu is None else self.relu(self.convolve(x))


class TinyConvPattern(Pattern):
    tree = (nn.Conv2d, Wildcard(nn.BatchNorm2d, max_count=1), Wildcard(nn.ReLU, max_count=1))
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = TinyConv

    def examples(self) -> list[Example]:
        return [Example(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), (torch.randn(2, 3, 8, 8),), "no batch norm")]

    def near_misses(self) -> list[Example]:
        return [Example(nn.Sequential(nn.Conv1d(3, 4, 3)), (torch.randn(2, 3, 8),), "it has one dimension")]


class TinyLinear(FusedMatmul):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(x)


class TinyLinearPattern(Pattern):
    tree = (nn.Linear,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = TinyLinear

    def examples(self) -> list[Example]:
        return [Example(nn.Sequential(nn.Linear(4, 3)), (torch.randn(2, 4),), "a classifier")]

    def near_misses(self) -> list[Example]:
        return [Example(nn.Sequential(nn.Conv1d(4, 3, 1)), (torch.randn(2, 4, 8),), "a product, but of channels")]


def first_convolution_in_float(point: QuantPoint) -> str | None:
    modules = (get_module(node) for node in point.node.graph.nodes if node.op == "call_module")
    first = next((module for module in modules if isinstance(module, TinyConv)), None)
    return "the first convolution stays in float" if point.module is first else None


class EvenChannels(Rule):
    id, severity = "TINY-01", Severity.WARNING
    title = "Convolutions have an even number of output channels."
    remedy = "Add a channel: one of each pair of multipliers idles."

    def find(self, model: Any) -> Iterator[Violation | Undecided]:
        for node in (node for node in model.graph.all_nodes() if node.op_type == "Conv"):
            shape = fixed_sizes_of(input_of(node, 1))
            if shape is None:
                yield Undecided(node, "the shape of its weight is not known")
            elif shape[0] % 2:
                yield Violation(node, f"it has {shape[0]} output channels")


class Plugin:
    @hookimpl
    def embedl_deploy_describe(self) -> BackendInfo:
        return BackendInfo("Tiny NPU", "Convolutions and products in INT8.")

    @hookimpl
    def embedl_deploy_conversions(self) -> list[Pattern]:
        return [HardtanhToReLUPattern()]

    @hookimpl
    def embedl_deploy_fusions(self) -> list[Pattern]:
        return [TinyConvPattern(), TinyLinearPattern()]

    @hookimpl
    def embedl_deploy_quantization_policies(self) -> dict[str, QuantPolicy]:
        return {"accurate": first_convolution_in_float}

    @hookimpl
    def embedl_deploy_check_rules(self) -> list[Rule]:
        return [EvenChannels()]


plugin = Plugin()
