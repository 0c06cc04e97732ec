"""Running and timing an engine on the GPU in this machine.

Written against the documentation of TensorRT's Python API. It was run on an H200 up to loading the engine, which
TensorRT for RTX refuses there, as it does not support that card; no machine at hand had a GPU that it supports. What
times the runs has not been run at all.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.tensorrt.compilers.build import Log, make_logger

_DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT32": torch.int32}
_DTYPES |= {"INT64": torch.int64, "INT8": torch.int8, "UINT8": torch.uint8, "BOOL": torch.bool}


#: Runs before those that are timed.
_WARM_UP = 10


def run_engine(trt: Any, engine: Path, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs of an engine, on the CPU.

    Args:
        trt: The Python module of TensorRT, or of TensorRT for RTX.
        engine: The file.
        inputs: One tensor per input, in the engine's order.

    Raises:
        CompileError: There is no GPU, or the engine was built for another or by another version.
        InputError: The number of inputs does not fit.
    """
    loaded = _Loaded(trt, engine, inputs)
    loaded.run()
    return [loaded.tensors[name].cpu() for name in loaded.outputs]


def time_engine(trt: Any, engine: Path, inputs: Sequence[torch.Tensor], seconds: float) -> list[float]:
    """The times of an engine's runs, in seconds, by events on the GPU; arguments and errors as for :func:`run_engine`.

    Args:
        trt: The Python module.
        engine: The file.
        inputs: One tensor per input.
        seconds: How long to go on.
    """
    loaded = _Loaded(trt, engine, inputs)
    for _ in range(_WARM_UP):
        loaded.run()
    times: list[float] = []
    until = time.monotonic() + seconds
    while not times or time.monotonic() < until:
        times.append(loaded.run())
    return times


class _Loaded:
    """An engine on the GPU, with inputs and room for outputs.

    Arguments and errors as for :func:`run_engine`.

    Attributes:
        outputs: Names of the outputs, in the engine's order.
        tensors: Inputs and outputs by name.
    """

    def __init__(self, trt: Any, engine: Path, inputs: Sequence[torch.Tensor]) -> None:
        self.name, self.log = engine.name, Log()
        if not torch.cuda.is_available():
            raise CompileError(f"{self.name} was not run: an engine runs on an NVIDIA GPU, and this machine has none.")
        self.runtime = trt.Runtime(make_logger(trt, self.log))  # the engine needs it as long as it lives
        loaded = self.runtime.deserialize_cuda_engine(engine.read_bytes())
        if loaded is None:
            raise CompileError(f"{self.name} cannot be loaded: {'; '.join(self.log.errors) or 'no reason was given'}.")
        names = [loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)]
        given = [name for name in names if loaded.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        if len(given) != len(inputs):
            raise InputError(f"{self.name} has the inputs {given}, but {len(inputs)} were given.")
        self.outputs = [name for name in names if name not in given]
        self.engine, self.context = loaded, loaded.create_execution_context()
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.tensors: dict[str, torch.Tensor] = {}
        for name, value in zip(given, inputs, strict=True):
            dtype = _DTYPES[loaded.get_tensor_dtype(name).name]
            self.tensors[name] = value.detach().to("cuda", dtype).contiguous()
            self.context.set_input_shape(name, tuple(value.shape))
        for name in self.outputs:
            shape, dtype = tuple(self.context.get_tensor_shape(name)), _DTYPES[loaded.get_tensor_dtype(name).name]
            self.tensors[name] = torch.empty(shape, dtype=dtype, device="cuda")
        for name, tensor in self.tensors.items():
            self.context.set_tensor_address(name, tensor.data_ptr())
        torch.cuda.synchronize()

    def run(self) -> float:
        """Run once, and wait; the seconds that the GPU took."""
        began = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        ended = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        began.record(self.stream)
        if not self.context.execute_async_v3(self.stream.cuda_stream):
            raise CompileError(f"{self.name} failed: {'; '.join(self.log.errors) or 'no reason was given'}.")
        ended.record(self.stream)
        self.stream.synchronize()
        return float(began.elapsed_time(ended)) / 1e3  # it gives milliseconds
