"""Full TensorRT, on a machine with an NVIDIA GPU."""

import importlib
from pathlib import Path
from typing import Any

import torch

from embedl_deploy.backend import Build, CompileOptions, Compiler, LoadedEngine, Progress
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.tensorrt.compilers.build import Log, build_engine, make_logger
from embedl_deploy.tensorrt.compilers.command import command_line
from embedl_deploy.tensorrt.compilers.inspector import layers_in_inspection
from embedl_deploy.tensorrt.compilers.packages import is_installed
from embedl_deploy.tensorrt.compilers.running import EngineOnGpu
from embedl_deploy.tensorrt.compilers.targets import target_here


class TensorRT(Compiler):
    """NVIDIA TensorRT 10 and later, which times kernels on the GPU that it builds for.

    Written against NVIDIA's documentation; it has not been run, because no machine at hand had the package and a GPU.
    """

    name = "tensorrt"

    def missing(self) -> str | None:
        """What has to be installed."""
        if not is_installed("tensorrt"):
            return "the package tensorrt is not installed. On a machine with an NVIDIA GPU: pip install tensorrt"
        if not torch.cuda.is_available():
            return "TensorRT builds on the GPU that it builds for, and there is none in this machine"
        return None

    def describe(self) -> str:
        """Name and version."""
        return f"TensorRT {importlib.import_module('tensorrt').__version__}"

    def command(self, onnx: Path, engine: Path, options: CompileOptions) -> str | None:
        """The call of ``trtexec``."""
        return command_line("trtexec", onnx, engine, options)

    def build(self, onnx: Path, options: CompileOptions, progress: Progress) -> Build:
        """Compile for the GPU in this machine, in the types that the file says."""
        trt = importlib.import_module("tensorrt")
        here = target_here()
        if options.target is not None and options.target.lower() != here:
            raise InputError(f"target is {options.target!r}; TensorRT builds for the GPU in this machine, {here}.")
        flags = trt.NetworkDefinitionCreationFlag
        # From version 11 on every network is strongly typed, and the flag is the default.
        strongly_typed = 1 << int(flags.STRONGLY_TYPED) if "STRONGLY_TYPED" in flags.__members__ else 0
        built = build_engine(trt, onnx, options, progress, network_flags=strongly_typed)
        layers = layers_in_inspection(self._inspect(trt, built.engine))
        messages = tuple(dict.fromkeys(built.log.warnings))
        return Build(built.engine, layers, here or "", built.seconds, messages)

    def _inspect(self, trt: Any, engine: bytes) -> str:
        runtime = trt.Runtime(make_logger(trt, Log()))
        loaded = runtime.deserialize_cuda_engine(engine)
        if loaded is None:
            raise CompileError(f"{self.describe()} cannot load the engine that it built; nothing was written.")
        text: str = loaded.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        return text

    def load(self, engine: Path, threads: int | None) -> LoadedEngine:
        """Load an engine onto the GPU in this machine."""
        return EngineOnGpu(importlib.import_module("tensorrt"), engine, threads)
