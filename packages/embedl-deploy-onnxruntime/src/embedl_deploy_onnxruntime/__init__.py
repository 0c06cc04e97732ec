"""A backend for ONNX Runtime on x86 and Arm processors."""

from embedl_deploy_onnxruntime.formats import S8S8, U8S7, U8S8
from embedl_deploy_onnxruntime.groups import (
    ONNXRUNTIME_CONVERSION_PATTERNS,
    ONNXRUNTIME_FUSION_PATTERNS,
    ONNXRUNTIME_PATTERNS,
)

__all__ = [
    "ONNXRUNTIME_CONVERSION_PATTERNS",
    "ONNXRUNTIME_FUSION_PATTERNS",
    "ONNXRUNTIME_PATTERNS",
    "S8S8",
    "U8S7",
    "U8S8",
]
