"""What a file asks for in INT8, and what an engine says it computes so."""

import onnx_ir as ir

from embedl_deploy import compile  # noqa: A004
from support.onnx_files import INT8, UINT8, OnnxFile
from zoo.kernels import integer_kernels

SCALE = 0.05


def weight(f, *shape):
    return f.dequantize(f.weight(*shape, dtype=INT8), SCALE)


def test_products_that_the_engine_computes_in_float_are_counted_with_its_reason(tmp_path):
    f = OnnxFile()
    x = f.qdq(f.input(1, 8, 6, 6), SCALE, UINT8)
    whole = f.qdq(f.conv(x, weight(f, 8, 8, 3, 3)), SCALE, UINT8)
    moved = f.node("Transpose", whole, perm=[0, 1, 3, 2])
    ending = f.conv(moved, weight(f, 8, 8, 1, 1))  # its result is an output, in float
    not_asked = f.conv(whole, f.weight(8, 8, 1, 1))
    ir.save(f.model(ending, not_asked), tmp_path / "net.onnx")
    report = compile(tmp_path / "net.onnx", backend="onnxruntime", threads=1).report
    assert integer_kernels(ir.load(tmp_path / "net.onnx"), report) == {
        "asked": 2,
        "int8": 1,
        "in_float": [["Conv: its result is an output of the network, in float", 1]],
    }
