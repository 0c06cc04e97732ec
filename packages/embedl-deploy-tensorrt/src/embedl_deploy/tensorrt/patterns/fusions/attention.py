"""Fusions of the parts that the attention conversions make."""

from embedl_deploy.patterns import Pattern, QDQPoint
from embedl_deploy.tensorrt.modules.attention import (
    FusedMHAInProjection,
    FusedScaledDotProductAttention,
    MHAInProjection,
    ScaledDotProductAttention,
)
from embedl_deploy.tensorrt.modules.swin_attention import FusedSwinAttention, SwinAttention


class MHAInProjectionPattern(Pattern):
    """``MHAInProjection``: one matrix product for queries, keys and values."""

    tree = (MHAInProjection,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedMHAInProjection


class ScaledDotProductAttentionPattern(Pattern):
    """``ScaledDotProductAttention``: three inputs, each with a quantizer of its own."""

    tree = (ScaledDotProductAttention,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.KEY_INPUT, QDQPoint.VALUE_INPUT})
    graft = FusedScaledDotProductAttention


class SwinAttentionPattern(Pattern):
    """``SwinAttention``: only the softmax inside has a place for a quantizer."""

    tree = (SwinAttention,)
    qdq_points = frozenset()
    graft = FusedSwinAttention
