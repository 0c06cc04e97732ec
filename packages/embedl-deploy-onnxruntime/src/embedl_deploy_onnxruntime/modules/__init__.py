"""Every module that this backend puts into a graph: one for each node unit of the runtime."""

from embedl_deploy_onnxruntime.modules.activations import (
    OrtHardsigmoid,
    OrtHardswish,
    OrtSiLU,
    OrtTabledActivation,
    Tabled,
)
from embedl_deploy_onnxruntime.modules.arithmetic import OrtAdd, OrtMul
from embedl_deploy_onnxruntime.modules.batch_norm import OrtBatchNorm
from embedl_deploy_onnxruntime.modules.concat import OrtConcat
from embedl_deploy_onnxruntime.modules.conv import OrtConv, Rectifier
from embedl_deploy_onnxruntime.modules.linear import OrtLinear
from embedl_deploy_onnxruntime.modules.pool import AveragePool, OrtAveragePool, OrtGlobalAveragePool

__all__ = [
    "AveragePool",
    "OrtAdd",
    "OrtAveragePool",
    "OrtBatchNorm",
    "OrtConcat",
    "OrtConv",
    "OrtGlobalAveragePool",
    "OrtHardsigmoid",
    "OrtHardswish",
    "OrtLinear",
    "OrtMul",
    "OrtSiLU",
    "OrtTabledActivation",
    "Rectifier",
    "Tabled",
]
