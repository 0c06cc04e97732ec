"""Fusions of the parts that the attention conversions make."""

import torch
from torch import nn

from embedl_deploy.patterns import QDQPoint
from embedl_deploy.tensorrt.modules import MHAInProjection, ScaledDotProductAttention, SwinAttention
from embedl_deploy.tensorrt.patterns import (
    MHAInProjectionPattern,
    ScaledDotProductAttentionPattern,
    SwinAttentionPattern,
)
from support.agreement import applied, check_rewrite, fused_counts
from support.nets import net, random_input

X = random_input(2, 5, 8)
PATTERNS = [MHAInProjectionPattern(), ScaledDotProductAttentionPattern(), SwinAttentionPattern()]


def in_projection(**settings: bool) -> MHAInProjection:
    return MHAInProjection(nn.Linear(8, 24), num_heads=2, **settings)


def test_where_quantizers_go() -> None:
    assert MHAInProjectionPattern.qdq_points == {QDQPoint.INPUT}
    assert ScaledDotProductAttentionPattern.qdq_points == {
        QDQPoint.INPUT,
        QDQPoint.KEY_INPUT,
        QDQPoint.VALUE_INPUT,
    }
    assert SwinAttentionPattern.qdq_points == frozenset()


def test_match_the_parts_of_attention() -> None:
    model = net(
        lambda m, x: (qkv := m.project(x, x, x), m.attend(qkv[0], qkv[1], qkv[2]))[1],
        project=in_projection(),
        attend=ScaledDotProductAttention(),
    )
    result = check_rewrite(model, (X,), PATTERNS)
    assert fused_counts(result.model) == {"FusedMHAInProjection": 1, "FusedScaledDotProductAttention": 1}


def test_arguments_that_are_none_and_keywords_are_passed_on() -> None:
    model = net(
        lambda m, x, bias: (
            qkv := m.project(x),
            m.attend(qkv[0], qkv[1], value=qkv[2], bias=bias, mask=None, logit_scale=m.scale),
        )[1],
        project=in_projection(zero_key_bias=True),
        attend=SwinAttention(),
        scale=nn.Parameter(torch.empty(2, 1, 1)),
    )
    result = check_rewrite(model, (X, random_input(1, 2, 5, 5)), PATTERNS)
    assert fused_counts(result.model) == {"FusedMHAInProjection": 1, "FusedSwinAttention": 1}


def test_a_projection_of_which_each_part_is_used_twice_is_kept_whole() -> None:
    model = net(
        lambda m, x: (qkv := m.project(x), qkv[0] + qkv[1] * qkv[2] + qkv[0], qkv[2])[1:], project=in_projection()
    )
    result = check_rewrite(model, (X,), PATTERNS)
    assert applied(result) == [("MHAInProjectionPattern", "project")]


def test_torchs_own_function_is_not_taken() -> None:
    model = net(lambda m, x: nn.functional.scaled_dot_product_attention(x, x, x))
    result = check_rewrite(model, (X,), PATTERNS)
    assert applied(result) == []
    name = "scaled_dot_product_attention"
    assert result.report.why_not(name) == [f"{name}: no pattern has an element for it"]
