"""Every pattern of this backend that is not any hardware's."""

from embedl_deploy_onnxruntime.patterns.activations import (
    HardsigmoidPattern,
    HardswishPattern,
    SiLUPattern,
    TabledActivationPattern,
)
from embedl_deploy_onnxruntime.patterns.arithmetic import AddPattern, MulPattern
from embedl_deploy_onnxruntime.patterns.batch_norm import BatchNormPattern
from embedl_deploy_onnxruntime.patterns.concat import ConcatPattern
from embedl_deploy_onnxruntime.patterns.conv import ConvPattern, ConvRectifierPattern
from embedl_deploy_onnxruntime.patterns.embedding import EmbeddingPattern
from embedl_deploy_onnxruntime.patterns.linear import LinearPattern
from embedl_deploy_onnxruntime.patterns.pool import AveragePoolPattern, GlobalAveragePoolPattern

__all__ = [
    "AddPattern",
    "AveragePoolPattern",
    "BatchNormPattern",
    "ConcatPattern",
    "ConvPattern",
    "ConvRectifierPattern",
    "EmbeddingPattern",
    "GlobalAveragePoolPattern",
    "HardsigmoidPattern",
    "HardswishPattern",
    "LinearPattern",
    "MulPattern",
    "SiLUPattern",
    "TabledActivationPattern",
]
