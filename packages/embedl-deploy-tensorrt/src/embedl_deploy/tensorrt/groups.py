"""The pattern lists of the TensorRT backend. Their order is the order of priority."""

from embedl_deploy.patterns import Pattern
from embedl_deploy.tensorrt.patterns import (
    ActAddPattern,
    AdaptiveAvgPoolPattern,
    ConvBNAddReLUPattern,
    ConvBNPattern,
    ConvBNReLUPattern,
    DecomposeMultiheadAttentionPattern,
    DecomposeSwinAttentionPattern,
    FlattenLinearToConv1x1Pattern,
    FoldZeroPadIntoConvPattern,
    HoistRankQueryPattern,
    LayerNormPattern,
    LinearPattern,
    LinearReLUPattern,
    MHAInProjectionPattern,
    RemoveIdentityAdaptiveAvgPoolPattern,
    RemoveIdentityPattern,
    ScaledDotProductAttentionPattern,
    StemConvBNReLUMaxPoolPattern,
    SwinAttentionPattern,
)

#: Structural rewrites, run to a fixed point before any fusion. None undoes another, so their order decides nothing.
TENSORRT_CONVERSION_PATTERNS: list[Pattern] = [
    RemoveIdentityPattern(),
    HoistRankQueryPattern(),
    FoldZeroPadIntoConvPattern(),
    FlattenLinearToConv1x1Pattern(),
    RemoveIdentityAdaptiveAvgPoolPattern(),
    DecomposeMultiheadAttentionPattern(),
    DecomposeSwinAttentionPattern(),
]

#: Fusions, run once: the first that takes a node has it, so longer and more specific ones come first.
TENSORRT_FUSION_PATTERNS: list[Pattern] = [
    StemConvBNReLUMaxPoolPattern(),  # up to 4 nodes
    ConvBNAddReLUPattern(),  # 4 nodes; before the next, which would take a shortcut's convolution
    ConvBNReLUPattern(),  # up to 3 nodes
    LinearReLUPattern(),  # 2 nodes
    ActAddPattern(),  # 2 nodes; an activation that follows a convolution or product stays with that
    ConvBNPattern(),  # up to 2 nodes: what the convolution patterns above have left
    LinearPattern(),  # 1 node: what LinearReLUPattern has left
    LayerNormPattern(),  # 1 node, as are the following: none takes what another wants
    AdaptiveAvgPoolPattern(),
    MHAInProjectionPattern(),
    ScaledDotProductAttentionPattern(),
    SwinAttentionPattern(),
]

#: Rewrites of the quantization stage. There are none: quantizers go where fusions' ``qdq_points`` say.
TENSORRT_QUANTIZED_PATTERNS: list[Pattern] = []

#: Groups between which SmoothQuant moves scales. There are none: it finds them by what modules can do, see
#: ``FusedModule.scale_outputs``.
TENSORRT_SMOOTH_PATTERNS: list[Pattern] = []

#: All of the above.
TENSORRT_PATTERNS: list[Pattern] = [
    *TENSORRT_CONVERSION_PATTERNS,
    *TENSORRT_FUSION_PATTERNS,
    *TENSORRT_QUANTIZED_PATTERNS,
    *TENSORRT_SMOOTH_PATTERNS,
]
