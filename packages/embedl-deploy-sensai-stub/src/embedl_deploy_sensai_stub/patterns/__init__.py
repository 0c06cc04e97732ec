"""Every pattern of this backend."""

from embedl_deploy_sensai_stub.patterns.add import AddPattern
from embedl_deploy_sensai_stub.patterns.avg_pool import AvgPoolToDepthwiseConvPattern
from embedl_deploy_sensai_stub.patterns.batch_norm import BatchNormToDepthwiseConvPattern
from embedl_deploy_sensai_stub.patterns.conv import ConvBNPattern, ConvBNReLUPattern
from embedl_deploy_sensai_stub.patterns.global_pool import (
    AvgPoolToGlobalPoolPattern,
    GlobalAveragePoolPattern,
    MeanToGlobalPoolPattern,
)
from embedl_deploy_sensai_stub.patterns.linear import LinearPattern
from embedl_deploy_sensai_stub.patterns.max_pool import MaxPoolPattern

__all__ = [
    "AddPattern",
    "AvgPoolToDepthwiseConvPattern",
    "AvgPoolToGlobalPoolPattern",
    "BatchNormToDepthwiseConvPattern",
    "ConvBNPattern",
    "ConvBNReLUPattern",
    "GlobalAveragePoolPattern",
    "LinearPattern",
    "MaxPoolPattern",
    "MeanToGlobalPoolPattern",
]
