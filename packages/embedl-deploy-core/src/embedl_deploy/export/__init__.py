"""Export: from a model to a file."""

from embedl_deploy.export.onnx import export_onnx
from embedl_deploy.export.result import OnnxExport
from embedl_deploy.export.runtime import run_onnx

__all__ = ["OnnxExport", "export_onnx", "run_onnx"]
