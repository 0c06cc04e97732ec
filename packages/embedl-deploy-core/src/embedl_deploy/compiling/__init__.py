"""Compiles an ONNX file with a backend's compiler, and runs and times the engine."""

from embedl_deploy.compiling.compilation import CompileResult, compile  # noqa: A004 - the user's word for it
from embedl_deploy.compiling.running import Engine, benchmark, benchmark_together, load_engine, run_engine

__all__ = [
    "CompileResult",
    "Engine",
    "benchmark",
    "benchmark_together",
    "compile",
    "load_engine",
    "run_engine",
]
