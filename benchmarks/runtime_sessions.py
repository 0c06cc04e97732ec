"""A file opened in the runtime that it is for, as a function of a sample."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

Sample = Sequence[torch.Tensor]
Run = Callable[[Sample], "np.ndarray[Any, Any]"]


def opened(path: Path, threads: int) -> Run:
    """The first output of a file for a sample: an ONNX file in ONNX Runtime, an ``.xml`` in OpenVINO.

    Args:
        path: The file.
        threads: How many compute.
    """
    return (_in_openvino if path.suffix == ".xml" else _in_onnxruntime)(path, threads)


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on the processor, with the runtime's own optimizations.

    Its threads rest between runs: otherwise they would take time from whatever runs next.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def feed(made: onnxruntime.InferenceSession, sample: Sample) -> dict[str, Any]:
    """A sample by the names of a session's inputs."""
    return {value.name: tensor.numpy() for value, tensor in zip(made.get_inputs(), sample, strict=True)}


def _in_onnxruntime(path: Path, threads: int) -> Run:
    made = session(path, threads)
    return lambda sample: made.run(None, feed(made, sample))[0]


def _in_openvino(path: Path, threads: int) -> Run:
    import openvino

    # What is not quantized is computed in float32, as by ONNX Runtime; the default is bfloat16 where that is fast.
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(sample: Sample) -> Any:
        found = request.infer([tensor.numpy() for tensor in sample], share_inputs=True, share_outputs=True)
        return found[0]

    return run
