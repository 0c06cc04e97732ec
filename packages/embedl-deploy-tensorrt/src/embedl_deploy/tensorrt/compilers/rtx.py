"""TensorRT for RTX: builds on a machine without a GPU."""

import importlib
from pathlib import Path
from typing import Any

from embedl_deploy.backend import Build, CompileOptions, Compiler, LoadedEngine, Progress
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.tensorrt.compilers.build import build_engine
from embedl_deploy.tensorrt.compilers.command import command_line
from embedl_deploy.tensorrt.compilers.layer_log import layers_in_log
from embedl_deploy.tensorrt.compilers.packages import is_installed
from embedl_deploy.tensorrt.compilers.running import EngineOnGpu
from embedl_deploy.tensorrt.compilers.targets import target_here
from embedl_deploy.tensorrt.gpus import TENSORRT_GPUS

#: What is built for where nothing is asked for and there is no GPU: Ada, the oldest with FP8.
_DEFAULT = "sm89"
_INSTALL = "pip install 'embedl-deploy-tensorrt[rtx]' (Linux, x86-64), or NVIDIA's own package tensorrt_rtx"


class TensorRTForRTX(Compiler):
    """TensorRT for RTX, by NVIDIA's package or by the libraries that ONNX Runtime's execution provider brings."""

    name = "tensorrt-rtx"

    def missing(self) -> str | None:
        """What has to be installed."""
        try:
            _module()
        except ImportError as error:
            return f"{error}. Install it: {_INSTALL}"
        return None

    def describe(self) -> str:
        """Name and version."""
        return f"TensorRT for RTX {_module().__version__}"

    def command(self, onnx: Path, engine: Path, options: CompileOptions) -> str | None:
        """The call of NVIDIA's ``tensorrt_rtx`` tool."""
        return command_line("tensorrt_rtx", onnx, engine, options)

    def build(self, onnx: Path, options: CompileOptions, progress: Progress) -> Build:
        """Compile for one compute capability."""
        trt = _module()
        if options.timing_cache is not None:
            raise InputError("timing_cache: TensorRT for RTX times nothing when it builds; leave the option out.")
        known = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
        here = target_here()
        target = options.target or (here if here and here.upper() in known else _DEFAULT)
        if target.upper() not in known:
            named = [gpu for gpu in TENSORRT_GPUS if gpu.name.lower() == target.lower()]
            raise InputError(
                f"target is {target!r}; {self.describe()} builds for {', '.join(name.lower() for name in known)}."
                + "".join(f" The target of {gpu.name} is {gpu.target}." for gpu in named)
            )

        def configure(config: Any) -> None:
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), 0)

        built = build_engine(trt, onnx, options, progress, network_flags=0, configure=configure)
        layers = layers_in_log(built.log.details)
        if not layers:
            raise CompileError(
                f"{self.describe()} built an engine but listed no layers in its log; nothing was written."
            )
        warnings = tuple(dict.fromkeys(built.log.warnings))
        if here and here.upper() not in known:
            cannot = f"{self.describe()} does not support the GPU in this machine, {here}: the engine is for {target}."
            warnings = (cannot, *warnings)
        return Build(built.engine, layers, target.lower(), built.seconds, warnings)

    def load(self, engine: Path, threads: int | None) -> LoadedEngine:
        """Load an engine onto the GPU in this machine."""
        return EngineOnGpu(_module(), engine, threads)


def _module() -> Any:
    """The Python module, its libraries loaded.

    Raises:
        ImportError: Neither package is there, or its libraries do not load.
    """
    if is_installed("tensorrt_rtx"):
        return importlib.import_module("tensorrt_rtx")
    # Importing this one makes the libraries' names and loads them, which the bindings then find.
    for package in ("onnxruntime_ep_nv_tensorrt_rtx", "tensorrt_rtx_bindings"):
        if not is_installed(package):
            raise ImportError(f"the package {package} is not installed")
    importlib.import_module("onnxruntime_ep_nv_tensorrt_rtx")
    return importlib.import_module("tensorrt_rtx_bindings")
