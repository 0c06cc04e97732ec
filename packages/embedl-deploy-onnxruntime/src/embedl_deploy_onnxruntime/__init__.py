"""A backend for ONNX Runtime on x86 and Arm processors."""

from embedl_deploy_onnxruntime.formats import DYNAMIC, S8S8, U8S7, U8S8, WEIGHTS_4BIT, WEIGHTS_8BIT
from embedl_deploy_onnxruntime.groups import (
    ONNXRUNTIME_CONVERSION_PATTERNS,
    ONNXRUNTIME_FUSION_PATTERNS,
    ONNXRUNTIME_PATTERNS,
)

__all__ = [
    "DYNAMIC",
    "ONNXRUNTIME_CONVERSION_PATTERNS",
    "ONNXRUNTIME_FUSION_PATTERNS",
    "ONNXRUNTIME_PATTERNS",
    "S8S8",
    "U8S7",
    "U8S8",
    "WEIGHTS_4BIT",
    "WEIGHTS_8BIT",
]
