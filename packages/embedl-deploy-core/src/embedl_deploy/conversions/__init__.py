"""Conversions for any hardware; a backend uses all of them, or lists those that it wants."""

from embedl_deploy.conversions.computed_weights import ComputedWeightPattern
from embedl_deploy.conversions.every import every_conversion
from embedl_deploy.conversions.fold import DecomposeFoldPattern, PermuteUnfoldPattern
from embedl_deploy.conversions.identity import RemoveIdentityPattern
from embedl_deploy.conversions.multihead_attention import DecomposeMultiheadAttentionPattern
from embedl_deploy.conversions.pool_window import ClipPoolWindowPattern
from embedl_deploy.conversions.rank_query import HoistRankQueryPattern
from embedl_deploy.conversions.swin_attention import DecomposeSwinAttentionPattern
from embedl_deploy.conversions.transformer_decoder import (
    DecomposeTransformerDecoderLayerPattern,
    UnrollTransformerDecoderPattern,
    UnrollTransformerPattern,
)
from embedl_deploy.conversions.transformer_encoder import (
    DecomposeTransformerEncoderLayerPattern,
    UnrollTransformerEncoderPattern,
)
from embedl_deploy.conversions.zero_pad import FoldZeroPadIntoConvPattern

__all__ = [
    "ClipPoolWindowPattern",
    "ComputedWeightPattern",
    "DecomposeFoldPattern",
    "DecomposeMultiheadAttentionPattern",
    "DecomposeSwinAttentionPattern",
    "DecomposeTransformerDecoderLayerPattern",
    "DecomposeTransformerEncoderLayerPattern",
    "FoldZeroPadIntoConvPattern",
    "HoistRankQueryPattern",
    "PermuteUnfoldPattern",
    "RemoveIdentityPattern",
    "UnrollTransformerDecoderPattern",
    "UnrollTransformerEncoderPattern",
    "UnrollTransformerPattern",
    "every_conversion",
]
