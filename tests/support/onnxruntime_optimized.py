"""What ONNX Runtime makes of a file: its kernels, and what it gives."""

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch


def optimized(path: Path, *inputs: torch.Tensor, settings: dict[str, str] | None = None) -> tuple[Counter[str], Any]:
    """The kernels of the optimized model, counted by kind, and the first output.

    Args:
        path: The file.
        *inputs: One tensor for each input of the file.
        settings: Of the session.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {value.name: x.numpy() for value, x in zip(session.get_inputs(), inputs, strict=True)}
    (first, *_) = session.run(None, feed)
    kernels = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    return kernels, torch.from_numpy(first)
