"""Compiles an ONNX file with a backend's compiler."""

from embedl_deploy.compiling.compilation import CompileResult, compile  # noqa: A004 - the user's word for it

__all__ = ["CompileResult", "compile"]
