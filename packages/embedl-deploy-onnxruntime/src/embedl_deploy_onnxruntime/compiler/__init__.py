"""ONNX Runtime as a compiler: the optimized model, what it runs, and how long each kernel takes."""

from embedl_deploy.backend import Compiler
from embedl_deploy_onnxruntime.compiler.runtime import ONNXRuntime

#: What :func:`embedl_deploy.compile` takes with this backend.
ONNXRUNTIME_COMPILERS: tuple[Compiler, ...] = (ONNXRuntime(),)

__all__ = ["ONNXRUNTIME_COMPILERS", "ONNXRuntime"]
