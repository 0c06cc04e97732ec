"""What the rules say of ONNX Runtime, asked of ONNX Runtime: the kernels of its optimized model, and its numbers."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxruntime
from support.onnxruntime_cases import CASES

REFUSALS = tuple(
    getattr(onnxruntime.capi.onnxruntime_pybind11_state, name)
    for name in ("Fail", "InvalidGraph", "NotImplemented", "InvalidArgument", "RuntimeException")
)


def session(model, level, optimized=""):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(opened):
    """The first output, of inputs that are the same each time."""
    random = np.random.default_rng(1)
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
    inputs = {each.name: random.standard_normal(each.shape).astype(types[each.type]) for each in opened.get_inputs()}
    return opened.run(None, inputs)[0].astype(np.float64)


def outcome_of(model, path):
    """What becomes of a model: the outcome, and the kernels."""
    levels = onnxruntime.GraphOptimizationLevel
    try:
        opened = session(model, levels.ORT_ENABLE_ALL, path)
    except REFUSALS:
        return "refused", set()
    kernels = {node.op_type for node in onnx.load(path).graph.node}
    try:
        found = run(opened)
    except REFUSALS:
        return "fails", kernels
    expected = run(session(model, levels.ORT_DISABLE_ALL))
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    return "runs" if error < 0.03 else "wrong", kernels


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_runtime_agrees(case, tmp_path):
    model = ir.serde.serialize_model(case.model()).SerializeToString()
    outcome, kernels = outcome_of(model, tmp_path / "optimized.onnx")
    assert outcome == case.outcome
    assert case.has in kernels or not case.has
    assert case.lacks not in kernels or not case.lacks
