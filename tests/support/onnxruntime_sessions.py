"""What ONNX Runtime makes of a model: the kernels of its optimized model, and its numbers."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

#: What it raises, when a session is made or run.
REFUSALS = tuple(
    getattr(onnxruntime.capi.onnxruntime_pybind11_state, name)
    for name in ("Fail", "InvalidGraph", "NotImplemented", "InvalidArgument", "RuntimeException")
)
_LEVELS = onnxruntime.GraphOptimizationLevel


def session(model: ir.Model, level: Any, optimized: str | Path = "") -> Any:
    """A session of one thread on the processor, which writes its optimized model if it is told where."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimized)
    written = ir.serde.serialize_model(model).SerializeToString()
    return onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])


def kernels_of(model: ir.Model, path: Path) -> tuple[Any, Counter[str]]:
    """The session of a model, and how many kernels of each kind it runs.

    Args:
        model: The model.
        path: Where the optimized model is written.
    """
    opened = session(model, _LEVELS.ORT_ENABLE_ALL, path)
    return opened, Counter(node.op_type for node in onnx.load(path).graph.node)


def run(opened: Any) -> "np.typing.NDArray[np.float64]":
    """The first output, of inputs that are the same each time."""
    random = np.random.default_rng(1)
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    inputs = {each.name: random.standard_normal(each.shape).astype(types[each.type]) for each in opened.get_inputs()}
    found: np.typing.NDArray[np.float64] = opened.run(None, inputs)[0].astype(np.float64)
    return found


def outcome_of(model: ir.Model, path: Path) -> tuple[str, set[str]]:
    """What becomes of a model, and its kernels.

    Returns:
        ``"refused"`` if no session can be made, ``"fails"`` if it cannot be run, ``"runs"`` if it gives what the model
        gives without any optimization, ``"wrong"`` if it gives something else; and the kinds of kernels.
    """
    try:
        opened, kernels = kernels_of(model, path)
    except REFUSALS:
        return "refused", set()
    try:
        found = run(opened)
    except REFUSALS:
        return "fails", set(kernels)
    expected = run(session(model, _LEVELS.ORT_DISABLE_ALL))
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    return "runs" if error < 0.03 else "wrong", set(kernels)
