"""Every pattern of the TensorRT backend."""

from embedl_deploy.conversions import (
    ClipPoolWindowPattern,
    ComputedWeightPattern,
    DecomposeFoldPattern,
    DecomposeMultiheadAttentionPattern,
    DecomposeSwinAttentionPattern,
    DecomposeTransformerDecoderLayerPattern,
    DecomposeTransformerEncoderLayerPattern,
    FoldZeroPadIntoConvPattern,
    HoistRankQueryPattern,
    PermuteUnfoldPattern,
    RemoveIdentityPattern,
    UnrollTransformerDecoderPattern,
    UnrollTransformerEncoderPattern,
    UnrollTransformerPattern,
)
from embedl_deploy.fusions import (
    LayerNorm2dPattern,
    LayerNormPattern,
    MHAInProjectionPattern,
    RMSNormPattern,
    ScaledDotProductAttentionPattern,
    SwinAttentionPattern,
)
from embedl_deploy.recomposition import (
    ActivationProductPattern,
    ConvertDotProductAttentionPattern,
    GroupedKeysPattern,
    PermutedLayerNormPattern,
    RecomposeActivationPattern,
    RecomposeAttentionPattern,
    RecomposeBatchNormPattern,
    RecomposeNormPattern,
)
from embedl_deploy.tensorrt.patterns.conversions.flatten_linear import FlattenLinearToConv1x1Pattern
from embedl_deploy.tensorrt.patterns.conversions.identity_pool import RemoveIdentityAdaptiveAvgPoolPattern
from embedl_deploy.tensorrt.patterns.fusions.conv import (
    ConvBNActPattern,
    ConvBNAddActPattern,
    ConvBNAddReLUPattern,
    ConvBNPattern,
    ConvBNReLUPattern,
    StemConvBNActMaxPoolPattern,
    StemConvBNReLUMaxPoolPattern,
)
from embedl_deploy.tensorrt.patterns.fusions.linear import LinearActPattern, LinearPattern, LinearReLUPattern
from embedl_deploy.tensorrt.patterns.fusions.pointwise import ActAddPattern
from embedl_deploy.tensorrt.patterns.fusions.pool import AdaptiveAvgPoolPattern
from embedl_deploy.tensorrt.patterns.fusions.recurrent import RecurrentPattern
from embedl_deploy.tensorrt.patterns.fusions.swin_norm import SwinNormPartitionPattern

__all__ = [
    "ActAddPattern",
    "ActivationProductPattern",
    "AdaptiveAvgPoolPattern",
    "ClipPoolWindowPattern",
    "ComputedWeightPattern",
    "ConvBNActPattern",
    "ConvBNAddActPattern",
    "ConvBNAddReLUPattern",
    "ConvBNPattern",
    "ConvBNReLUPattern",
    "ConvertDotProductAttentionPattern",
    "DecomposeFoldPattern",
    "DecomposeMultiheadAttentionPattern",
    "DecomposeSwinAttentionPattern",
    "DecomposeTransformerDecoderLayerPattern",
    "DecomposeTransformerEncoderLayerPattern",
    "FlattenLinearToConv1x1Pattern",
    "FoldZeroPadIntoConvPattern",
    "GroupedKeysPattern",
    "HoistRankQueryPattern",
    "LayerNorm2dPattern",
    "LayerNormPattern",
    "LinearActPattern",
    "LinearPattern",
    "LinearReLUPattern",
    "MHAInProjectionPattern",
    "PermuteUnfoldPattern",
    "PermutedLayerNormPattern",
    "RMSNormPattern",
    "RecomposeActivationPattern",
    "RecomposeAttentionPattern",
    "RecomposeBatchNormPattern",
    "RecomposeNormPattern",
    "RecurrentPattern",
    "RemoveIdentityAdaptiveAvgPoolPattern",
    "RemoveIdentityPattern",
    "ScaledDotProductAttentionPattern",
    "StemConvBNActMaxPoolPattern",
    "StemConvBNReLUMaxPoolPattern",
    "SwinAttentionPattern",
    "SwinNormPartitionPattern",
    "UnrollTransformerDecoderPattern",
    "UnrollTransformerEncoderPattern",
    "UnrollTransformerPattern",
]
