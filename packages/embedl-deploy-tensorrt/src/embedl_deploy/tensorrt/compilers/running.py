"""Running and timing an engine on the GPU in this machine.

Written against the documentation of TensorRT's Python API. It was run on an H200 up to loading the engine, which
TensorRT for RTX refuses there, as it does not support that card; no machine at hand had a GPU that it supports. What
runs and times an engine has been run with a stand-in for TensorRT only.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from embedl_deploy.backend import LoadedEngine
from embedl_deploy.engine import EngineTensor
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.tensorrt.compilers.build import Log, make_logger
from embedl_deploy.tensorrt.compilers.words import dtype_of

_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3": torch.float8_e4m3fn,
    "int32": torch.int32,
    "int64": torch.int64,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
#: Where tensors are that an engine reads and writes.
_DEVICE = "cuda"


class EngineOnGpu(LoadedEngine):
    """An engine on the GPU in this machine.

    Args:
        trt: The Python module of TensorRT, or of TensorRT for RTX.
        engine: The file.
        threads: Refused: a GPU has none to choose.

    Raises:
        CompileError: There is no GPU, or the engine was built for another or by another version.
        InputError: Threads were asked for.
    """

    def __init__(self, trt: Any, engine: Path, threads: int | None) -> None:
        self.name, self.log = engine.name, Log()
        if threads is not None:
            raise InputError(f"threads is {threads}, but {self.name} runs on a GPU; leave it out.")
        if not torch.cuda.is_available():
            raise CompileError(f"{self.name} was not run: an engine runs on an NVIDIA GPU, and this machine has none.")
        self.runtime = trt.Runtime(make_logger(trt, self.log))  # the engine needs it as long as it lives
        loaded = self.runtime.deserialize_cuda_engine(engine.read_bytes())
        if loaded is None:
            raise CompileError(f"{self.name} cannot be loaded: {'; '.join(self.log.errors) or 'no reason was given'}.")
        names = [loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)]
        tensors = [
            EngineTensor(name, tuple(loaded.get_tensor_shape(name)), dtype_of(loaded.get_tensor_dtype(name).name))
            for name in names
        ]
        is_input = [loaded.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names]
        self.inputs = tuple(tensor for tensor, reads in zip(tensors, is_input, strict=True) if reads)
        self.outputs = tuple(tensor for tensor, reads in zip(tensors, is_input, strict=True) if not reads)
        self.engine, self.context = loaded, loaded.create_execution_context()
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run it once; the outputs on the CPU."""
        tensors = self._placed(inputs)
        self._run()
        return [tensors[tensor.name].cpu() for tensor in self.outputs]

    def time(self, inputs: Sequence[torch.Tensor], runs: int, seconds: float) -> list[float]:
        """The times of runs, in seconds, by events on the GPU."""
        tensors = self._placed(inputs)
        times: list[float] = []
        until = time.monotonic() + seconds
        while len(times) < runs or time.monotonic() < until:
            times.append(self._run())
        del tensors  # the engine had their addresses
        return times

    def _placed(self, inputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        """Inputs and room for outputs on the GPU by name, which the engine knows the addresses of."""
        tensors: dict[str, torch.Tensor] = {}
        for tensor, value in zip(self.inputs, inputs, strict=True):
            tensors[tensor.name] = value.to(_DEVICE, _DTYPES[tensor.dtype]).contiguous()
            if not self.context.set_input_shape(tensor.name, tuple(value.shape)):
                raise InputError(
                    f"{self.name} does not take {tensor.name!r} in the shape {tuple(value.shape)}: the shapes that it "
                    f"was compiled for do not include it{''.join(f'; {said}' for said in self.log.errors[-1:])}."
                )
        for tensor in self.outputs:
            shape = tuple(self.context.get_tensor_shape(tensor.name))
            tensors[tensor.name] = torch.empty(shape, dtype=_DTYPES[tensor.dtype], device=_DEVICE)
        for name, value in tensors.items():
            self.context.set_tensor_address(name, value.data_ptr())
        torch.cuda.synchronize()
        return tensors

    def _run(self) -> float:
        """Run once, and wait; the seconds that the GPU took."""
        began = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        ended = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        began.record(self.stream)
        if not self.context.execute_async_v3(self.stream.cuda_stream):
            raise CompileError(f"{self.name} failed: {'; '.join(self.log.errors) or 'no reason was given'}.")
        ended.record(self.stream)
        self.stream.synchronize()
        return float(began.elapsed_time(ended)) / 1e3  # it gives milliseconds
