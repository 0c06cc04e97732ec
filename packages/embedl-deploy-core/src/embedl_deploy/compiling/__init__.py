"""Compiling an ONNX file by a backend's compiler."""

from embedl_deploy.compiling.compilation import CompileResult, compile  # noqa: A004 - the user's word for it

__all__ = ["CompileResult", "compile"]
