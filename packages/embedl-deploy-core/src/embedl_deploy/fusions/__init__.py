"""Fusions for any hardware; a backend lists those that it wants, or writes its own."""

from embedl_deploy.fusions.attention import (
    MHAInProjectionPattern,
    ScaledDotProductAttentionPattern,
    SwinAttentionPattern,
)
from embedl_deploy.fusions.convolution import why_not_one_convolution
from embedl_deploy.fusions.norms import LayerNorm2dPattern, LayerNormPattern, RMSNormPattern
from embedl_deploy.patterns import Pattern

__all__ = [
    "LayerNorm2dPattern",
    "LayerNormPattern",
    "MHAInProjectionPattern",
    "RMSNormPattern",
    "ScaledDotProductAttentionPattern",
    "SwinAttentionPattern",
    "every_fusion",
    "why_not_one_convolution",
]


def every_fusion() -> list[Pattern]:
    """Create one of each fusion for any hardware; each takes one node, so their order decides nothing."""
    return [
        MHAInProjectionPattern(),
        ScaledDotProductAttentionPattern(),
        SwinAttentionPattern(),
        LayerNormPattern(),
        RMSNormPattern(),
        LayerNorm2dPattern(),
    ]
