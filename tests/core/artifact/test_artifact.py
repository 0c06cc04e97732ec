"""ONNX files as they are found: reading, origins, operations and notes."""

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.artifact import (
    module_of,
    modules_by_node,
    note_in_float,
    operations_of,
    read_onnx,
    why_in_float,
)
from embedl_deploy.errors import InputError
from support.nets import random_input, scrambled


def node(operator, shapes, output, **attributes):
    """A node whose inputs and output have these shapes."""
    names = [f"i{index}" for index in range(len(shapes))]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
    made = helper.make_node(operator, names, ["y"], "node", **attributes)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, output)
    model = helper.make_model(helper.make_graph([made], "g", values, [y]))
    (found,) = ir.from_proto(model).graph
    return found


class TestReading:
    @pytest.mark.parametrize("content", [b"hello world", b"", b"\x00" * 64], ids=["text", "nothing", "zeros"])
    def test_what_is_no_onnx(self, tmp_path, content):
        path = tmp_path / "bad.onnx"
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.onnx' (cannot be read as ONNX|contains no graph)"):
            read_onnx(path)

    def test_what_is_no_file(self, tmp_path):
        with pytest.raises(InputError, match="is a folder"):
            read_onnx(tmp_path)
        with pytest.raises(InputError, match="is not there"):
            read_onnx(tmp_path / "nothing.onnx")


class TestOrigin:
    def test_of_an_export(self, tmp_path):
        block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        model = scrambled(nn.Sequential(block, nn.Flatten(), nn.Linear(16, 2))).eval()
        export_onnx(model, random_input(1, 3, 2, 2), tmp_path / "net.onnx")
        found = modules_by_node(read_onnx(tmp_path / "net.onnx"))
        assert set(found.values()) >= {"0.0", "0.1", "2"}

    @pytest.mark.parametrize(
        ("name", "module"),
        [
            ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
            ("/Relu", None),
            ("Conv_3", None),
            ("/features/features.1/block/block.0/Conv", "features.1.block.0"),
        ],
    )
    def test_of_an_older_exporter(self, name, module):
        made = node("Relu", [[1]], [1])
        made.name = name
        assert module_of(made) == module

    def test_quantizers_count_as_the_module_that_they_stand_in(self):
        made = node("Relu", [[1]], [1])
        scopes = ["", "conv1", "conv1.weight_fake_quant", "conv1.weight_fake_quant.quantizer", "fake_quantize"]
        made.metadata_props["pkg.torch.onnx.name_scopes"] = str(scopes)
        assert module_of(made) == "conv1"


@pytest.mark.parametrize(
    ("made", "operations"),
    [
        (node("Conv", [[1, 3, 8, 8], [4, 3, 3, 3]], [1, 4, 6, 6]), 2 * 4 * 36 * 27),
        (node("Conv", [[1, 4, 8, 8], [4, 1, 3, 3]], [1, 4, 6, 6], group=4), 2 * 4 * 36 * 9),
        (node("ConvTranspose", [[1, 4, 8, 8], [4, 2, 3, 3]], [1, 2, 10, 10]), 2 * 256 * 18),
        (node("Gemm", [[5, 7], [7, 3]], [5, 3]), 2 * 15 * 7),
        (node("Gemm", [[7, 5], [7, 3]], [5, 3], transA=1), 2 * 15 * 7),
        (node("MatMul", [[2, 5, 7], [7, 3]], [2, 5, 3]), 2 * 30 * 7),
        (node("MatMul", [["batch", 7], [7, 3]], ["batch", 3]), 2 * 3 * 7),
        (node("Add", [[5], [5]], [5]), 0),
    ],
    ids=["Conv", "depthwise", "ConvTranspose", "Gemm", "Gemm transposed", "MatMul", "open batch", "Add"],
)
def test_operations(made, operations):
    assert operations_of(made) == operations


def test_notes(tmp_path):
    made = node("Relu", [[1]], [1])
    model = ir.Model(made.graph, ir_version=10)
    assert why_in_float(model, "a.b") is None
    note_in_float(model, {"a.b": "because", "c": "so"})
    ir.save(model, tmp_path / "noted.onnx")
    model = read_onnx(tmp_path / "noted.onnx")
    assert why_in_float(model, "a.b") == "because"
    assert why_in_float(model, "a.b.conv") == "because"
    assert why_in_float(model, "a.bc") is None
    assert why_in_float(model, "a") is None


def test_notes_of_something_else_are_ignored():
    model = ir.Model(node("Relu", [[1]], [1]).graph, ir_version=10, metadata_props={"embedl_deploy.in_float": "{"})
    assert why_in_float(model, "a") is None


def test_the_files_are_onnx(tmp_path):
    model = ir.Model(node("Relu", [[1]], [1]).graph, ir_version=10)
    ir.save(model, tmp_path / "x.onnx")
    onnx.checker.check_model(str(tmp_path / "x.onnx"))
