"""Finds values that overflow or underflow in float16, and keeps those parts of a model in float32."""

from embedl_deploy.float16.api import keep_in_float32
from embedl_deploy.float16.report import Float16Limit, Float32Node, Float32Report, float32_report

__all__ = ["Float16Limit", "Float32Node", "Float32Report", "float32_report", "keep_in_float32"]
