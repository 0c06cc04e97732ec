"""Modules that rewrites put into graphs, and the tracer that keeps them whole."""

from embedl_deploy.graph.forms.activations import ActivationLike
from embedl_deploy.graph.functional import FrozenBatchNorm2d, conv2d_with, linear_with
from embedl_deploy.modules.activation_product import FusedActivationProduct
from embedl_deploy.modules.attention import ScaledDotProductAttention, join_heads
from embedl_deploy.modules.attention_mask import open_unseen_rows
from embedl_deploy.modules.base import ConvertedModule, FusedModule
from embedl_deploy.modules.centering import (
    center_input_of,
    padding_of,
    shift_outputs_of,
    shifted_activation,
)
from embedl_deploy.modules.channel_scale import ChannelScale, is_homogeneous
from embedl_deploy.modules.embedding import FusedEmbedding
from embedl_deploy.modules.fused_attention import (
    FusedMHAInProjection,
    FusedScaledDotProductAttention,
)
from embedl_deploy.modules.fused_norms import (
    NORMS,
    FusedLayerNorm,
    FusedLayerNorm2d,
    FusedRMSNorm,
    scaled_norm,
)
from embedl_deploy.modules.inside import InnerProduct, products_without_place
from embedl_deploy.modules.norms import LayerNorm2d, RMSNorm2d, WrittenLayerNorm, WrittenRMSNorm
from embedl_deploy.modules.padded_conv import PaddedConv2d
from embedl_deploy.modules.projections import (
    AttentionMask,
    MHAInProjection,
    SplitHeads,
)
from embedl_deploy.modules.slots import QuantStub, WeightFakeQuantize
from embedl_deploy.modules.swin_attention import (
    FusedSwinAttention,
    SwinAttention,
    SwinWindowPartition,
    SwinWindowReverse,
)
from embedl_deploy.modules.tracer import LeafTracer, symbolic_trace
from embedl_deploy.modules.weighted import BatchNorm, Convolution, FusedConv, FusedMatmul, with_parameters
from embedl_deploy.modules.weights import (
    NamedWeight,
    fix_parametrized_weights,
    named_weights,
    reason_of_part,
    weights_besides,
)

__all__ = [
    "NORMS",
    "ActivationLike",
    "AttentionMask",
    "BatchNorm",
    "ChannelScale",
    "ConvertedModule",
    "Convolution",
    "FrozenBatchNorm2d",
    "FusedActivationProduct",
    "FusedConv",
    "FusedEmbedding",
    "FusedLayerNorm",
    "FusedLayerNorm2d",
    "FusedMHAInProjection",
    "FusedMatmul",
    "FusedModule",
    "FusedRMSNorm",
    "FusedScaledDotProductAttention",
    "FusedSwinAttention",
    "InnerProduct",
    "LayerNorm2d",
    "LeafTracer",
    "MHAInProjection",
    "NamedWeight",
    "PaddedConv2d",
    "QuantStub",
    "RMSNorm2d",
    "ScaledDotProductAttention",
    "SplitHeads",
    "SwinAttention",
    "SwinWindowPartition",
    "SwinWindowReverse",
    "WeightFakeQuantize",
    "WrittenLayerNorm",
    "WrittenRMSNorm",
    "center_input_of",
    "conv2d_with",
    "fix_parametrized_weights",
    "is_homogeneous",
    "join_heads",
    "linear_with",
    "named_weights",
    "open_unseen_rows",
    "padding_of",
    "products_without_place",
    "reason_of_part",
    "scaled_norm",
    "shift_outputs_of",
    "shifted_activation",
    "symbolic_trace",
    "weights_besides",
    "with_parameters",
]
