"""ONNX Runtime as a compiler: the optimized model, what it runs, and how long each kernel takes."""

from embedl_deploy.backend import Compiler

__all__ = ["ONNXRUNTIME_COMPILERS"]

ONNXRUNTIME_COMPILERS: tuple[Compiler, ...] = ()
