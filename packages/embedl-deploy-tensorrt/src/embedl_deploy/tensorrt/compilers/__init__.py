"""The TensorRT compilers that can be called from Python, the preferred first."""

from embedl_deploy.tensorrt.compilers.full import TensorRT
from embedl_deploy.tensorrt.compilers.rtx import TensorRTForRTX

#: What the backend gives to ``compile``.
TENSORRT_COMPILERS = (TensorRT(), TensorRTForRTX())

__all__ = ["TENSORRT_COMPILERS", "TensorRT", "TensorRTForRTX"]
