"""Every module that the TensorRT backend puts into a graph."""

from embedl_deploy.modules import (
    AttentionMask,
    FusedActivationProduct,
    FusedLayerNorm,
    FusedLayerNorm2d,
    FusedMHAInProjection,
    FusedRMSNorm,
    FusedScaledDotProductAttention,
    FusedSwinAttention,
    MHAInProjection,
    ScaledDotProductAttention,
    SplitHeads,
    SwinAttention,
    SwinWindowPartition,
    SwinWindowReverse,
)
from embedl_deploy.tensorrt.modules.conv import (
    FusedConvBN,
    FusedConvBNAct,
    FusedConvBNActMaxPool,
    FusedConvBNAddAct,
    FusedConvBNAddReLU,
    FusedConvBNReLU,
    FusedConvBNReLUMaxPool,
)
from embedl_deploy.tensorrt.modules.linear import FusedLinear, FusedLinearAct, FusedLinearReLU
from embedl_deploy.tensorrt.modules.pointwise import FusedActAdd
from embedl_deploy.tensorrt.modules.pool import FusedAdaptiveAvgPool2d
from embedl_deploy.tensorrt.modules.recurrent import FusedRecurrent
from embedl_deploy.tensorrt.modules.swin_norm import FusedSwinNormPartition

__all__ = [
    "AttentionMask",
    "FusedActAdd",
    "FusedActivationProduct",
    "FusedAdaptiveAvgPool2d",
    "FusedConvBN",
    "FusedConvBNAct",
    "FusedConvBNActMaxPool",
    "FusedConvBNAddAct",
    "FusedConvBNAddReLU",
    "FusedConvBNReLU",
    "FusedConvBNReLUMaxPool",
    "FusedLayerNorm",
    "FusedLayerNorm2d",
    "FusedLinear",
    "FusedLinearAct",
    "FusedLinearReLU",
    "FusedMHAInProjection",
    "FusedRMSNorm",
    "FusedRecurrent",
    "FusedScaledDotProductAttention",
    "FusedSwinAttention",
    "FusedSwinNormPartition",
    "MHAInProjection",
    "ScaledDotProductAttention",
    "SplitHeads",
    "SwinAttention",
    "SwinWindowPartition",
    "SwinWindowReverse",
]
