"""compile(): what is written, what is refused, and that it does not pretend to be an engine."""

import json
import zipfile

import onnx
import onnx_ir as ir
import pytest
from torch import nn

from embedl_deploy import compile, export_onnx, transform  # noqa: A004
from embedl_deploy.compiling import run_engine
from embedl_deploy.engine import EngineReport, LayerKind
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.quantize import quantize
from embedl_deploy_sensai_stub.quantization import SENSAI_QUANT_CONFIG
from support.nets import random_input, scrambled
from support.onnx_files import OnnxFile

X = random_input(2, 3, 8, 8)


def exported(folder, config=SENSAI_QUANT_CONFIG):
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    model = scrambled(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), *head)).eval()
    result = transform(model, (X,), backend="sensai")
    if config is not None:
        result = quantize(result, [X], config, progress=False)
    export_onnx(result, X, folder / "net.onnx", tolerance=None)
    return folder / "net.onnx"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("quantized"))


def parts(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_file_its_meaning_and_what_is_left_to_do_are_written(file, tmp_path):
    result = compile(file, tmp_path / "net.zip", backend="sensai")
    written = parts(result.path)
    assert list(written) == ["README.txt", "handover.json", "model.onnx"]
    assert written["model.onnx"] == file.read_bytes()
    told = json.loads(written["handover.json"])
    assert [layer["kind"] for layer in told["layers"]] == ["convolution", "global average pooling", "reshape", "linear"]
    assert (told["version"], told["source"], told["model"]) == (1, "net.onnx", "model.onnx")
    assert all(line in written["README.txt"].decode() for line in (*told["messages"], *told["outside"]))


def test_it_says_that_it_is_no_engine(file, tmp_path):
    result = compile(file, tmp_path / "net.zip", backend="sensai")
    assert result.report.messages[0].startswith("This is a hand-over, not an engine: Lattice's neural network compiler")
    assert "hand-over" in result.report.compiler
    with pytest.raises(CompileError, match=r"net\.zip was not run"):
        run_engine(result.path, [X], backend="sensai")


def test_the_report_has_the_layers(file, tmp_path):
    result = compile(file, tmp_path / "net.zip", backend="sensai")
    report = EngineReport.load(result.report_path)
    assert report == result.report
    assert [(layer.kind, layer.type, layer.precision) for layer in report.layers] == [
        (LayerKind.CONVOLUTION, "convolution with ReLU", "int8"),
        (LayerKind.POOLING, "global average pooling", "int8"),
        (LayerKind.GEMM, "linear", "int8"),
    ]
    conv = report.layers[0]
    assert (conv.modules[0], conv.operations) == ("0", 2 * (2 * 8 * 6 * 6) * (3 * 3 * 3))
    assert conv.inputs[0].layout.endswith(" fractional bits")
    assert report.float_layers == ()
    assert report.layers_of("5")[0].outputs[0].dtype == "float32", "the file has no scale for the output"


def test_the_same_file_gives_the_same_bytes(file, tmp_path):
    first, second = (compile(file, tmp_path / name, backend="sensai").path for name in ("a.zip", "b.zip"))
    assert first.read_bytes() == second.read_bytes()


def test_weights_in_a_second_file_are_taken_in(file, tmp_path):
    onnx.save(onnx.load(file), tmp_path / "net.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    assert (tmp_path / "w.data").stat().st_size > 0
    written = compile(tmp_path / "net.onnx", backend="sensai").path
    assert written == tmp_path / "net.zip"
    whole = onnx.load_from_string(parts(written)["model.onnx"])
    wanted = {value.name: onnx.numpy_helper.to_array(value) for value in onnx.load(file).graph.initializer}
    got = {value.name: onnx.numpy_helper.to_array(value) for value in whole.graph.initializer}
    assert got.keys() == wanted.keys()
    assert all((got[name] == value).all() for name, value in wanted.items())


def test_a_float_model_is_refused_with_rule_module_and_reason(tmp_path):
    with pytest.raises(CompileError) as caught:
        compile(exported(tmp_path, config=None), tmp_path / "net.zip", backend="sensai")
    assert caught.value.messages[0].endswith(": Conv: input and weight in float; the engine has 8-bit numbers")
    assert caught.value.module.partition(".")[0] == "0"
    assert "SENSAI-05" in caught.value.rules
    assert not (tmp_path / "net.zip").exists()


@pytest.mark.parametrize(
    ("scale", "size", "node", "message"),
    [
        (0.05, 3, "QuantizeLinear_0", "SENSAI-01 at QuantizeLinear_0: a scale is 0.05, which is not a power of two"),
        (0.0625, 5, "Conv_4", "SENSAI-04 at Conv_4: Conv: kernel is 5×5; the engine has 1×1 and 3×3"),
    ],
    ids=["scale", "kernel"],
)
def test_refusals_name_the_node(scale, size, node, message, tmp_path):
    file = OnnxFile()
    y = file.conv(file.qdq(file.input(1, 4, 8, 8), scale), file.qdq(file.weight(4, 4, size, size), scale))
    ir.save(file.model(y), tmp_path / "net.onnx")
    with pytest.raises(CompileError) as caught:
        compile(tmp_path / "net.onnx", backend="sensai")
    assert (caught.value.node, caught.value.messages[0]) == (node, message)


def test_what_cannot_be_judged_is_refused(file, tmp_path):
    model = onnx.load(file)
    scale = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear")
    model.graph.initializer.remove(next(value for value in model.graph.initializer if value.name == scale))
    model.graph.input.append(onnx.helper.make_tensor_value_info(scale, onnx.TensorProto.FLOAT, []))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(CompileError, match=r"SENSAI-01 cannot judge .*: the scale is not stored in the file"):
        compile(tmp_path / "net.onnx", backend="sensai")


@pytest.mark.parametrize("option", [{"target": "crosslink-nx"}, {"refit": True}, {"workspace": 1 << 20}])
def test_options_that_only_lattices_tools_have_are_refused(option, file, tmp_path):
    with pytest.raises(InputError, match=f"no option {next(iter(option))}; leave it out"):
        compile(file, tmp_path / "net.zip", backend="sensai", **option)


def test_open_sizes_stay_open(tmp_path):
    file = OnnxFile()
    y = file.conv(file.qdq(file.input("n", 4, 8, 8), 0.5), file.qdq(file.weight(4, 4, 3, 3), 0.5))
    ir.save(file.model(y), tmp_path / "net.onnx")
    result = compile(tmp_path / "net.onnx", tmp_path / "net.zip", backend="sensai", timeout=60)
    told = json.loads(parts(result.path)["handover.json"])
    assert told["inputs"][0]["shape"] == [None, 4, 8, 8]
    assert result.report.layers[0].inputs[0].shape == (-1, 4, 8, 8)
