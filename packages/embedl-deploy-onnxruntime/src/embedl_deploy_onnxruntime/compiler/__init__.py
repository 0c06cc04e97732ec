"""ONNX Runtime as a compiler: the optimized model, what it runs, and how long each kernel takes."""

from embedl_deploy.backend import Compiler

ONNXRUNTIME_COMPILERS: tuple[Compiler, ...] = ()
