"""Compiles an ONNX file with a backend's compiler, and times the engine."""

from embedl_deploy.compiling.compilation import CompileResult, compile  # noqa: A004 - the user's word for it
from embedl_deploy.compiling.timing import benchmark

__all__ = ["CompileResult", "benchmark", "compile"]
