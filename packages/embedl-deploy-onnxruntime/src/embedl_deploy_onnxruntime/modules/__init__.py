"""Every module that this backend puts into a graph: one for each node unit of the runtime."""

from embedl_deploy_onnxruntime.modules.arithmetic import OrtAdd, OrtMul
from embedl_deploy_onnxruntime.modules.conv import OrtConv, Rectifier
from embedl_deploy_onnxruntime.modules.linear import OrtLinear
from embedl_deploy_onnxruntime.modules.pool import OrtAveragePool

__all__ = ["OrtAdd", "OrtAveragePool", "OrtConv", "OrtLinear", "OrtMul", "Rectifier"]
