"""Operator Fusions: every code block as written; conftest.py says what differs."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.patterns import QDQPoint
from embedl_deploy.quantize import PointReport, QuantConfig, insert_qdq, quantization_report
from embedl_deploy.tensorrt import TENSORRT_PATTERNS, patterns


def quantized_points(model: nn.Module, **config: str) -> list[PointReport]:
    """What is quantized of a model that is transformed by all patterns."""
    result = transform(model, patterns=TENSORRT_PATTERNS)
    return quantization_report(insert_qdq(result.model, result.matches, QuantConfig(**config))).quantized


def places(model: nn.Module) -> dict[str, set[str]]:
    """The labels of all quantized points, by the class of their module."""
    found: dict[str, set[str]] = {}
    for point in quantized_points(model):
        found.setdefault(point.module, set()).add(point.label)
    return found


def is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


class TestFusionsGuide:
    """Operator Fusions."""

    def test_running_fusions_only_and_counting(
        self, model: nn.Module, capsys: pytest.CaptureFixture[str], example_input: torch.Tensor
    ) -> None:
        # --------------------------------------------------------------------------------------------------------------
        from embedl_deploy import transform
        from embedl_deploy.tensorrt import TENSORRT_FUSION_PATTERNS

        result = transform(model, patterns=TENSORRT_FUSION_PATTERNS)
        # --------------------------------------------------------------------------------------------------------------
        # The next block of the guide: "To inspect what was fused".
        # --------------------------------------------------------------------------------------------------------------
        from collections import Counter

        fused_counts = Counter(
            type(m).__name__
            for m in result.model.modules()
            if hasattr(type(m).__name__, 'startswith')
            and type(m).__name__.startswith('Fused')
        )  # fmt: skip
        for name, count in sorted(fused_counts.items()):
            print(f" {name}: {count}")
        # --------------------------------------------------------------------------------------------------------------
        # The guide's own table does not add up to ResNet-50's 53 convolutions; these numbers do. Without the conversion
        # the classifier is a FusedLinear.
        assert capsys.readouterr().out.splitlines() == [
            " FusedAdaptiveAvgPool2d: 1",
            " FusedConvBN: 4",
            " FusedConvBNAddReLU: 16",
            " FusedConvBNReLU: 32",
            " FusedConvBNReLUMaxPool: 1",
            " FusedLinear: 1",
        ]
        assert torch.equal(result.model(example_input), model(example_input))

    @pytest.mark.parametrize(
        ("pattern", "points"),
        [
            (patterns.ConvBNPattern, {QDQPoint.INPUT}),
            (patterns.ConvBNReLUPattern, {QDQPoint.INPUT}),
            (patterns.StemConvBNReLUMaxPoolPattern, {QDQPoint.INPUT}),
            (patterns.ConvBNAddReLUPattern, {QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT}),
            (patterns.LinearReLUPattern, {QDQPoint.INPUT}),
            (patterns.LinearPattern, {QDQPoint.INPUT}),
            (patterns.LayerNormPattern, set()),
            (patterns.MHAInProjectionPattern, {QDQPoint.INPUT}),
            (patterns.ScaledDotProductAttentionPattern, {QDQPoint.INPUT, QDQPoint.KEY_INPUT, QDQPoint.VALUE_INPUT}),
            (patterns.AdaptiveAvgPoolPattern, {QDQPoint.INPUT, QDQPoint.OUTPUT}),
        ],
    )
    def test_qdq_points(self, pattern: type[patterns.ConvBNPattern], points: set[QDQPoint]) -> None:
        assert set(pattern.qdq_points) == points

    def test_stubs_in_resnet50(self, model: nn.Module) -> None:
        """No code block: "so quantization stubs are placed correctly"."""
        assert places(model) == {
            "FusedConvBNReLUMaxPool": {"input 0", "weight"},
            "FusedConvBNAddReLU": {"input 0", "input 1", "weight"},  # the skip connection is quantized as well
            "FusedConvBNReLU": {"input 0", "weight"},
            "FusedConvBN": {"input 0", "weight"},
            "FusedAdaptiveAvgPool2d": {"input 0", "output"},
        }

    def test_stubs_in_a_vision_transformer(self, vit: nn.Module) -> None:
        """No code block: layer norms are not quantized, and Q, K and V are, independently."""
        assert places(vit) == {
            "FusedConvBN": {"input 0", "weight"},
            "FusedMHAInProjection": {"input 0", "weight"},
            "FusedScaledDotProductAttention": {"input 0", "input 1", "input 2", "softmax_quant"},
            "FusedLinear": {"input 0", "weight"},
            "FusedLinearReLU": {"input 0", "weight"},
        }
        points = quantized_points(vit)
        attention = [p.stub for p in points if p.module == "FusedScaledDotProductAttention" and "input" in p.label]
        assert len(attention) == len(set(attention)) == 2 * 3

    def test_depthwise_convolutions(self, convnext: nn.Module) -> None:
        """No code block: "the default pattern set quantizes all convolutions equally", mixed precision does not."""
        depthwise = {name.removesuffix(".0") for name, part in convnext.named_modules() if is_depthwise(part)}
        assert len(depthwise) == 18
        everywhere = {p.path.removesuffix(".0") for p in quantized_points(convnext) if p.module == "FusedConvBN"}
        assert depthwise < everywhere and len(everywhere) == 18 + 4  # and the stem's and downsamplings'
        mixed = {p.path.removesuffix(".0") for p in quantized_points(convnext, policy="mixed", backend="tensorrt")}
        assert not depthwise & mixed
