"""Float16 that holds: what a model computes that float16 cannot hold, found on data and kept in float32."""

from embedl_deploy.float16.api import keep_in_float32
from embedl_deploy.float16.report import Float32Node, Float32Report, float32_report

__all__ = ["Float32Node", "Float32Report", "float32_report", "keep_in_float32"]
