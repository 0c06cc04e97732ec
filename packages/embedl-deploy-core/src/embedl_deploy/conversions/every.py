"""Every conversion of core, in the order in which they are tried."""

from embedl_deploy.conversions.computed_weights import ComputedWeightPattern
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
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.recomposition import (
    ConvertDotProductAttentionPattern,
    GroupedKeysPattern,
    PermutedLayerNormPattern,
    RecomposeActivationPattern,
    RecomposeAttentionPattern,
    RecomposeBatchNormPattern,
    RecomposeNormPattern,
)

#: None undoes another, so their order decides only the order of reports.
_CLASSES: tuple[type[Pattern], ...] = (
    RemoveIdentityPattern,
    ComputedWeightPattern,
    HoistRankQueryPattern,
    FoldZeroPadIntoConvPattern,
    DecomposeFoldPattern,
    PermuteUnfoldPattern,
    ClipPoolWindowPattern,
    UnrollTransformerPattern,
    UnrollTransformerEncoderPattern,
    DecomposeTransformerEncoderLayerPattern,
    UnrollTransformerDecoderPattern,
    DecomposeTransformerDecoderLayerPattern,
    RecomposeAttentionPattern,
    RecomposeActivationPattern,
    RecomposeNormPattern,
    RecomposeBatchNormPattern,
    PermutedLayerNormPattern,
    ConvertDotProductAttentionPattern,
    GroupedKeysPattern,
    DecomposeMultiheadAttentionPattern,
    DecomposeSwinAttentionPattern,
)


def every_conversion() -> list[Pattern]:
    """Create one of each conversion for any hardware.

    They are those of ``embedl_deploy.conversions`` and of ``embedl_deploy.recomposition``, in the order in which they
    are tried. Each call makes new ones, because a pattern knows the distribution whose backend brings it.
    """
    return [made() for made in _CLASSES]
