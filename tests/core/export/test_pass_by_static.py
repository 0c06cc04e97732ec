"""A file without one of its QuantizeLinear: what is moved between it and DequantizeLinear moves values then."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper, shape_inference

from embedl_deploy.export.file_grid import Grid
from embedl_deploy.export.pass_by_static import pass_by_static

SCALE, ZERO = np.float32(0.5), np.uint8(7)
CONSTANTS = {
    "s": SCALE,
    "double": np.float32(1.0),
    "z": ZERO,
    "other": np.uint8(8),
    "shape": np.array([2, 8]),
    "pads": np.array([0, 0, 0, 1]),
    "w": np.ones((4, 3), np.uint8),
}
X = np.linspace(-3, 3, 16, dtype=np.float32).reshape(4, 4) + np.float32(0.013)


def model(*nodes):
    """QuantizeLinear of ``x``, and nodes that read ``q``; each is an operator and what it reads, then attributes."""
    made = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize")]
    made += [helper.make_node(kind, read, [gives], **settings) for kind, read, gives, settings in nodes]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in CONSTANTS.items()]
    given = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4, 4])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph(made, "g", [given], [result], stored)
    opset = helper.make_opsetid("", 19)
    return ir.from_proto(shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[opset], ir_version=9)))


def passed(file):
    grid = pass_by_static(next(node for node in file.graph if node.name == "quantize"))
    if grid is None:
        return None
    assert grid == Grid((0.5,), (7.0,), "uint8")
    session = onnxruntime.InferenceSession(ir.to_proto(file).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


def dequantize(read, scale="s", zero="z"):
    return "DequantizeLinear", [read, scale, zero], "y", {}


MOVED = {
    "at once": ([dequantize("q")], X),
    "reshaped": ([("Reshape", ["q", "shape"], "m", {}), dequantize("m")], X.reshape(2, 8)),
    "turned, then reshaped": (
        [("Transpose", ["q"], "t", {"perm": [1, 0]}), ("Reshape", ["t", "shape"], "m", {}), dequantize("m")],
        X.T.reshape(2, 8),
    ),
    "padded with the zero point": (
        [("Pad", ["q", "pads", "z"], "m", {}), dequantize("m")],
        np.pad(X, ((0, 0), (0, 1))),
    ),
    "with a factor": ([("Flatten", ["q"], "m", {}), dequantize("m", "double")], 2 * X),
    "with a factor at once": ([dequantize("q", "double")], 2 * X),
}


@pytest.mark.parametrize("name", MOVED)
def test_values_pass_as_they_are(name):
    nodes, wanted = MOVED[name]
    np.testing.assert_allclose(passed(model(*nodes)), wanted, rtol=1e-6)


COMPUTED = {
    "another zero point": [dequantize("q", "s", "other")],
    "padded with another number": [("Pad", ["q", "pads", "other"], "m", {}), dequantize("m")],
    "a product of integers": [("MatMulInteger", ["q", "w", "z"], "i", {}), ("Cast", ["i"], "y", {"to": 1})],
    "integers in float": [("Cast", ["q"], "y", {"to": 1})],
    "moved, then multiplied": [
        ("Transpose", ["q"], "m", {"perm": [1, 0]}),
        ("MatMulInteger", ["m", "w", "z"], "i", {}),
        ("Cast", ["i"], "y", {"to": 1}),
    ],
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_computes_with_the_integers_is_not_passed_by(name):
    assert passed(model(*COMPUTED[name])) is None
