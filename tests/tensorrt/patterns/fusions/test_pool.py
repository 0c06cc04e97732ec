"""Fusions of pooling."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.patterns import QDQPoint
from embedl_deploy.tensorrt.modules import FusedAdaptiveAvgPool2d
from embedl_deploy.tensorrt.patterns import AdaptiveAvgPoolPattern
from support.agreement import applied, check_rewrite, fused_counts
from support.nets import net, random_input

X = random_input(2, 3, 8, 8)


def test_quantizers_go_on_both_sides() -> None:
    assert AdaptiveAvgPoolPattern.qdq_points == {QDQPoint.INPUT, QDQPoint.OUTPUT}


@pytest.mark.parametrize(
    ("spelling", "size"),
    [
        (nn.AdaptiveAvgPool2d(1), 1),
        (nn.AdaptiveAvgPool2d((3, None)), (3, None)),
        (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (2, 3)),
        (lambda x: F.adaptive_avg_pool2d(x, output_size=1), 1),
    ],
    ids=["module", "rectangle", "F", "F, keyword"],
)
def test_matches_every_spelling(spelling: object, size: object) -> None:
    result = check_rewrite(net(lambda m, x: m.pool(x), pool=spelling), (X,), [AdaptiveAvgPoolPattern()])
    (fused,) = (module for module in result.model.modules() if isinstance(module, FusedAdaptiveAvgPool2d))
    assert fused.pool.output_size == size


@pytest.mark.parametrize(
    "spelling",
    [nn.AvgPool2d(8), nn.AdaptiveMaxPool2d(1), lambda x: x.mean((2, 3), keepdim=True)],
    ids=["AvgPool2d", "AdaptiveMaxPool2d", "mean"],
)
def test_other_pooling_does_not_match(spelling: object) -> None:
    result = check_rewrite(net(lambda m, x: m.pool(x), pool=spelling), (X,), [AdaptiveAvgPoolPattern()])
    assert applied(result) == []
    (name,) = result.report["unfused"]
    assert result.report.why_not(name) == [f"{name}: no pattern has an element for it"]


def test_input_and_output_used_elsewhere_are_kept() -> None:
    model = net(lambda m, x: (y := x * 2, p := m.pool(y), p + y, p, y)[2:], pool=nn.AdaptiveAvgPool2d(1))
    result = check_rewrite(model, (X,), [AdaptiveAvgPoolPattern()])
    assert fused_counts(result.model) == {"FusedAdaptiveAvgPool2d": 1}


def test_an_output_overwritten_in_place_is_still_right() -> None:
    model = net(lambda m, x: (y := m.pool(x), torch.relu_(y), y + x)[2], pool=nn.AdaptiveAvgPool2d(8))
    check_rewrite(model, (X,), [AdaptiveAvgPoolPattern()])
