"""Running and timing an engine on the processor in this machine."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedl_deploy.backend import LoadedEngine
from embedl_deploy.engine import EngineTensor
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy_onnxruntime.compiler.engine_file import made_for, other_version
from embedl_deploy_onnxruntime.compiler.processor import processor_here
from embedl_deploy_onnxruntime.compiler.sessions import level_of, make_session, threads_for

_TYPES = {"float": "float32", "double": "float64"}
_WITHOUT_NUMPY = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


class EngineHere(LoadedEngine):
    """An engine in a session of ONNX Runtime.

    Args:
        engine: The file.
        threads: How many compute an operator; by default as many as torch uses in this process.

    Raises:
        CompileError: It is no engine, or one for another processor.
    """

    def __init__(self, engine: Path, threads: int | None) -> None:
        self.name, self.threads = engine.name, threads_for(threads)
        try:
            # It was optimized when it was made.
            self.session = make_session(engine, level_of("ORT_DISABLE_ALL"), self.threads)
        except Exception as error:  # ONNX Runtime's own exception types are not exported
            raise CompileError(
                f"{self.name} cannot be loaded by ONNX Runtime: {' '.join(str(error).split())}{other_version(engine)}"
            ) from error
        made, here = made_for(self.session), processor_here()
        if made is None:
            raise CompileError(
                f"{self.name} is a model, but no engine of ONNX Runtime: compile it first, which optimizes it for the "
                "processor in this machine."
            )
        if made.target != here:
            raise CompileError(
                f"{self.name} was not run: it was compiled for the processor {made.target}, and the one in this "
                f"machine is {here}. Compile the ONNX file here."
            )
        self.inputs = tuple(_tensor(self.name, value) for value in self.session.get_inputs())
        self.outputs = tuple(_tensor(self.name, value) for value in self.session.get_outputs())

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run it once."""
        return [torch.from_numpy(np.asarray(value)) for value in self._guarded(self._feed(inputs))]

    def time(self, inputs: Sequence[torch.Tensor], runs: int, seconds: float) -> list[float]:
        """The times of runs, in seconds."""
        feed = self._feed(inputs)
        self._guarded(feed)  # says what is wrong, and fetches what another engine has displaced
        return timed_runs(self.session, feed, runs, seconds)

    def _guarded(self, feed: Mapping[str, Any]) -> list[Any]:
        try:
            found: list[Any] = self.session.run(None, feed)
        except Exception as error:  # as above
            raise CompileError(f"{self.name} fails in ONNX Runtime: {' '.join(str(error).split())}") from error
        return found

    def _feed(self, inputs: Sequence[torch.Tensor]) -> dict[str, Any]:
        feed = {}
        for tensor, value in zip(self.inputs, inputs, strict=True):
            if value.dtype in _WITHOUT_NUMPY:
                raise InputError(f"The input {tensor.name!r} is in {tensor.dtype}, which numpy does not have.")
            feed[tensor.name] = value.numpy()
        return feed


def timed_runs(session: Any, feed: Mapping[str, Any], runs: int, seconds: float) -> list[float]:
    """The time of each run of a session, in seconds.

    Args:
        session: The session.
        feed: Inputs by name, as numpy's arrays.
        runs: At least so many.
        seconds: Go on until so much time has passed.
    """
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < runs or time.perf_counter() < until:
        began = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - began)
    return times


def _tensor(engine: str, value: Any) -> EngineTensor:
    """An input or output of a session."""
    if not value.type.startswith("tensor("):
        raise CompileError(f"{engine} has {value.name!r}, a {value.type}; only tensors can be passed and returned.")
    kind = value.type.removeprefix("tensor(").removesuffix(")")
    sizes = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return EngineTensor(value.name, sizes, _TYPES.get(kind, kind))
