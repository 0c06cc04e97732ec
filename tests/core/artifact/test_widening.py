"""Stored numbers in other types."""

import numpy as np
import onnx_ir as ir
import pytest

from embedl_deploy.artifact import nodes_of, widen_constants
from embedl_deploy.errors import InputError
from support.onnx_files import FLOAT, FP8, INT4, OnnxFile

E2M1, E8M0 = ir.DataType.FLOAT4E2M1, ir.DataType.FLOAT8E8M0
NUMBERS = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0, 6.0]


def small():
    """Two products with weights in E2M1 that share their scales in E8M0, and one in INT4."""
    f = OnnxFile(24)
    x, scale = f.input(2, 2), f.constant(np.array([[2.0**-127, 2.0**127]]), E8M0)
    settings = {"axis": 0, "block_size": 8, "output_dtype": int(FLOAT)}
    for _ in range(2):
        weight = f.node("DequantizeLinear", f.constant(np.array(NUMBERS).reshape(8, 2), E2M1), scale, **settings)
        f.node("MatMul", f.node("Transpose", weight), weight)
    other = f.dequantize(f.constant(np.ones((2, 2)), INT4), 0.5, INT4)
    return f.model(f.node("MatMul", x, other))


def stored(model):
    found = []
    for node in nodes_of(model, "DequantizeLinear"):
        for value in node.inputs[:2]:
            tensor = ir.convenience.get_const_tensor(value)
            found.append((value.dtype.name, tensor.numpy().astype(np.float64).tolist()))
    return found


def test_the_numbers_are_the_same():
    model = small()
    before = stored(model)
    assert widen_constants(model, {"FLOAT4E2M1": "FLOAT8E4M3FN", "FLOAT8E8M0": "FLOAT"})
    after = stored(model)
    assert [numbers for _, numbers in after] == [numbers for _, numbers in before]
    assert [kind for kind, _ in after] == [*("FLOAT8E4M3FN", "FLOAT") * 2, "INT4", "FLOAT"]
    assert after[1][1] == [[2.0**-127, 2.0**127]]


def test_what_is_shared_stays_shared():
    model = small()
    widen_constants(model, {"FLOAT8E8M0": "FLOAT"})
    first, second, _ = nodes_of(model, "DequantizeLinear")
    assert first.inputs[1] is second.inputs[1]
    assert first.inputs[1].producer() is next(iter(model.graph))


def test_a_file_without_such_numbers_is_not_changed():
    f = OnnxFile()
    model = f.model(f.node("MatMul", f.input(2, 8), f.dequantize(f.weight(8, 8, dtype=FP8), 0.1, FP8)))
    count = len(model.graph)
    assert not widen_constants(model, {"FLOAT4E2M1": "FLOAT8E4M3FN"})
    assert len(model.graph) == count


def test_an_unknown_type_is_named():
    with pytest.raises(InputError, match="kinds has FLOAT3; expected"):
        widen_constants(small(), {"FLOAT3": "FLOAT"})
