"""Running an engine on the GPU in this machine.

Written against the documentation of TensorRT's Python API. It was run on an H200 up to loading the engine, which
TensorRT for RTX refuses there, as it does not support that card; no machine at hand had a GPU that it supports.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.tensorrt.compilers.build import Log, make_logger

_DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT32": torch.int32}
_DTYPES |= {"INT64": torch.int64, "INT8": torch.int8, "UINT8": torch.uint8, "BOOL": torch.bool}


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
    if not torch.cuda.is_available():
        raise CompileError(f"{engine.name} was not run: an engine runs on an NVIDIA GPU, and this machine has none.")
    log = Log()
    loaded = trt.Runtime(make_logger(trt, log)).deserialize_cuda_engine(engine.read_bytes())
    if loaded is None:
        raise CompileError(f"{engine.name} cannot be loaded: {'; '.join(log.errors) or 'no reason was given'}.")
    names = [loaded.get_tensor_name(index) for index in range(loaded.num_io_tensors)]
    given = [name for name in names if loaded.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    if len(given) != len(inputs):
        raise InputError(f"{engine.name} has the inputs {given}, but {len(inputs)} were given.")
    context, stream = loaded.create_execution_context(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    tensors: dict[str, torch.Tensor] = {}
    for name, value in zip(given, inputs, strict=True):
        dtype = _DTYPES[loaded.get_tensor_dtype(name).name]
        tensors[name] = value.detach().to("cuda", dtype).contiguous()
        context.set_input_shape(name, tuple(value.shape))
    for name in names:
        if name not in tensors:
            shape, dtype = tuple(context.get_tensor_shape(name)), _DTYPES[loaded.get_tensor_dtype(name).name]
            tensors[name] = torch.empty(shape, dtype=dtype, device="cuda")
        context.set_tensor_address(name, tensors[name].data_ptr())
    torch.cuda.synchronize()
    if not context.execute_async_v3(stream.cuda_stream):
        raise CompileError(f"{engine.name} failed: {'; '.join(log.errors) or 'no reason was given'}.")
    stream.synchronize()
    return [tensors[name].cpu() for name in names if name not in given]
