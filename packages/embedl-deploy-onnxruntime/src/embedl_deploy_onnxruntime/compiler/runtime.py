"""ONNX Runtime as a compiler: an engine is the optimized model of a session, measured on the processor here."""

import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

from embedl_deploy.artifact import read_onnx
from embedl_deploy.backend import Build, CompileOptions, Compiler, CompilerRefusedError, LoadedEngine, Progress
from embedl_deploy.engine import Timing
from embedl_deploy.errors import InputError
from embedl_deploy_onnxruntime.compiler.engine_file import (
    Made,
    is_blocked,
    name_nodes,
    note_sources,
    note_target,
    read_model,
)
from embedl_deploy_onnxruntime.compiler.example_inputs import random_inputs, shapes_to_time
from embedl_deploy_onnxruntime.compiler.layers import engine_layers
from embedl_deploy_onnxruntime.compiler.processor import processor_here
from embedl_deploy_onnxruntime.compiler.profiling import measure
from embedl_deploy_onnxruntime.compiler.running import EngineHere
from embedl_deploy_onnxruntime.compiler.sessions import known_levels, level_of, make_session, refusal, threads_for

#: What protobuf holds in one file, with room for what is not weights.
_MOST_BYTES = 2_000_000_000
#: The options that mean something here; the process's timeout is kept by whoever called.
_OPTIONS = ("target", "shapes", "optimization_level", "timeout", "threads")
_STEPS = 2


class ONNXRuntime(Compiler):
    """ONNX Runtime's own optimizer and kernels, on the processor in this machine."""

    name = "onnxruntime"
    suffix = ".ort.engine"
    float_type = torch.float32

    def missing(self) -> str | None:
        """What has to be installed."""
        return None if find_spec("onnxruntime") else "the package onnxruntime is not installed: pip install onnxruntime"

    def describe(self) -> str:
        """Name and version."""
        return f"ONNX Runtime {version('onnxruntime')}"

    def command(self, onnx: Path, engine: Path, options: CompileOptions) -> str | None:
        """Nothing: no tool of ONNX Runtime does this."""
        return None

    def build(self, onnx: Path, options: CompileOptions, progress: Progress) -> Build:
        """Optimize a file for the processor in this machine, and time each node of the result."""
        here, level = _checked(options)
        file = read_onnx(onnx)
        held = [value.const_value for value in file.graph.initializers.values() if value.const_value is not None]
        if sum(tensor.nbytes for tensor in held) > _MOST_BYTES:
            raise CompilerRefusedError(
                ["its weights take more than 2 GB, and an optimized model is one file, which cannot hold them"],
                advice="Export it with integer_weights=True, which stores quantized weights in 8 bits; quantize more "
                "of them; or run the ONNX file itself in ONNX Runtime.",
            )
        with tempfile.TemporaryDirectory() as folder:
            engine = Path(folder) / "model.onnx"
            progress("optimizing", 0, _STEPS)
            began = time.perf_counter()
            try:
                make_session(onnx, level, options.threads, optimized=engine)
            except Exception as error:  # ONNX Runtime's own exception types are not exported
                raise refusal(error) from error
            seconds = time.perf_counter() - began
            proto = read_model(engine)
            name_nodes(proto)
            note_target(proto, Made(here, version("onnxruntime")))
            engine.write_bytes(proto.SerializeToString())
            progress("timing", 1, _STEPS)
            loaded = level_of("ORT_DISABLE_ALL")
            session = make_session(engine, loaded, options.threads)
            shapes, chosen = shapes_to_time(session, options.shapes)
            feed = random_inputs(session, shapes)
            del session  # its threads and memory
            try:
                times, nodes = measure(engine, loaded, options.threads, feed, len(proto.graph.node))
            except Exception as error:  # as above
                at = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
                advice = f"It was run with the inputs {at}. Pass the usual shapes of inputs with open dimensions."
                raise refusal(error, advice if chosen else None) from error
            layers = engine_layers(file, read_onnx(engine), nodes, shapes)
            progress("timing", _STEPS, _STEPS)
        note_sources(proto, {layer.name: layer.onnx_nodes for layer in layers})
        return Build(
            proto.SerializeToString(),
            layers,
            here,
            seconds,
            tuple(_said(is_blocked(proto), here, chosen)),
            Timing(tuple(times), threads_for(options.threads)),
            chosen,
        )

    def load(self, engine: Path, threads: int | None) -> LoadedEngine:
        """Load an engine that was made for the processor in this machine."""
        return EngineHere(engine, threads)


def _checked(options: CompileOptions) -> tuple[str, int]:
    """The processor and the level to optimize for.

    Raises:
        InputError: An option does not fit.
    """
    default = CompileOptions()
    given = [
        name for name in vars(default) if name not in _OPTIONS and getattr(options, name) != getattr(default, name)
    ]
    if given:
        raise InputError(f"ONNX Runtime has no option {', '.join(given)}; leave it out.")
    threads_for(options.threads)
    here, target = processor_here(), options.target
    if target is not None and target.lower() != here and not here.startswith(f"{target.lower()}-"):
        raise InputError(
            f"target is {target!r}; ONNX Runtime optimizes for the processor in this machine, {here!r}. Leave the "
            "target out, and compile on the machine that is to run the engine."
        )
    levels = known_levels()
    level = level_of("ORT_ENABLE_ALL") if options.optimization_level is None else options.optimization_level
    if level not in levels:
        known = ", ".join(f"{number} ({name})" for number, name in levels.items())
        raise InputError(f"optimization_level is {level}; ONNX Runtime has {known}.")
    return here, level


def _said(blocked: bool, here: str, chosen: dict[str, tuple[int, ...]]) -> list[str]:
    """What to know about an engine."""
    said = []
    if blocked:
        said.append(
            f"the engine is for processors like this one, {here}: activations lie in blocks as wide as its vectors. "
            "Elsewhere, compile the file again"
        )
    if chosen:
        at = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in chosen.items())
        said.append(f"open dimensions were taken as 1 to time it: {at}. Pass shapes to time it at others")
    return said
