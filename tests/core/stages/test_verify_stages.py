"""Every stage against the original, and the layer at which most is lost."""

import json
import math

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from embedl_deploy import export_onnx, transform, verify_stages
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.modules import WeightFakeQuantize
from embedl_deploy.quantize import Quantizer, quantize
from embedl_deploy.stages import LayerDifference, StageDifference, Verification
from embedl_deploy.verify import Difference
from support.nets import random_input, scrambled

X = random_input(4, 3, 8, 8)


def network():
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    return scrambled(nn.Sequential(*layers)).eval()


@pytest.fixture
def stages(tmp_path):
    model = network()
    result = transform(model, X, backend="tensorrt")
    quantized = quantize(result, [X], progress=False)
    path = tmp_path / "net.onnx"
    export_onnx(quantized, X, path)
    return model, {"fused": result, "quantized": quantized, "ONNX Runtime": path}


def test_all_stages(stages):
    model, given = stages
    found = verify_stages(model, X, given, layers=True)
    fused, quantized, onnx = found.stages
    assert [stage.name for stage in found.stages] == ["fused", "quantized", "ONNX Runtime"]
    assert fused.sqnr > 100
    assert fused.difference.max_rel < 1e-5
    assert 20 < quantized.sqnr < 60
    assert abs(onnx.sqnr - quantized.sqnr) < 1
    assert list(found.layers) == ["fused", "quantized", "ONNX Runtime"]
    assert [(layer.module, layer.pattern, layer.is_wrong) for layer in found.layers["fused"]] == [
        ("0", "ConvBNReLUPattern", False),
        ("3", "ConvBNReLUPattern", False),
        ("5", "ConvBNPattern", False),
    ]
    assert [layer.module for layer in found.layers["quantized"]] == ["0", "3", "5"]
    assert "quantized: most is lost at" in str(found)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["stages"][1]["sqnr"] == quantized.sqnr


def test_a_file_in_float16_gets_its_inputs_in_float16(stages, tmp_path):
    model, given = stages
    export_onnx(given["fused"], X, tmp_path / "half.onnx", dtype=torch.float16)
    (found,) = verify_stages(model, X, {"half": tmp_path / "half.onnx"}).stages
    assert 40 < found.sqnr < 90


def test_the_modules_of_a_file_are_compared_in_onnxruntime(stages):
    model, given = stages
    of_file = verify_stages(model, X, given, layers=True).layers["ONNX Runtime"]
    assert [layer.module for layer in of_file if not layer.module.endswith("_quant")] == ["0", "3", "5"]
    assert all(layer.sqnr > 100 for layer in of_file)


def test_the_module_at_which_a_file_goes_wrong_is_named(stages):
    model, given = stages
    path = given["ONNX Runtime"]
    for index, module in enumerate(("0", "3")):
        file = onnx.load(path)
        node = [node for node in file.graph.node if node.op_type == "Conv"][index]
        bias = next(tensor for tensor in file.graph.initializer if tensor.name == node.input[2])
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
        spoilt = path.with_name("spoilt.onnx")
        onnx.save(file, spoilt)
        found = verify_stages(model, X, {"quantized": given["quantized"], "file": spoilt}, layers=True)
        stage, layer = found.first_below(15)
        assert (stage, layer.module) == ("file", module)
        last = str(found).splitlines()[-1]
        assert last.startswith("file: most is lost at ")
        assert f" at {module}" in last


def _layer(name, sqnr):
    return LayerDifference(name, name, sqnr, Difference(0.0, 0.0))


@pytest.mark.parametrize(
    ("sqnrs", "words"),
    [
        ((5.0, 4.0), "most is lost at 0: from no difference, to 5.0 dB"),
        ((math.inf, 5.0), "most is lost at 1: from no difference, to 5.0 dB"),
        ((12.0, -3.0), "most is lost at 1: 15.0 dB, to -3.0 dB; already 12.0 dB at 0"),
        ((-math.inf, -math.inf), "most is lost at 0: from no difference, to -inf dB"),
    ],
    ids=["first", "second", "made more of", "not finite"],
)
def test_the_line_about_what_is_lost(sqnrs, words):
    layers = tuple(_layer(str(place), sqnr) for place, sqnr in enumerate(sqnrs))
    stage = StageDifference("file", 0.0, Difference(0.0, 0.0))
    assert str(Verification((stage,), {"file": layers})).splitlines()[-1] == f"file: {words}"


def test_a_file_without_modules_has_no_layers(stages):
    model, given = stages
    path = given["ONNX Runtime"]
    file = onnx.load(path)
    for node in file.graph.node:
        del node.metadata_props[:]
        node.name = ""
    onnx.save(file, path)
    assert verify_stages(model, X, given, layers=True).layers["ONNX Runtime"] == ()


def test_the_layer_that_goes_wrong_is_named(stages):
    model, given = stages
    spoilt = given["quantized"].get_submodule("3")
    stub = next(part for part in spoilt.modules() if isinstance(part, WeightFakeQuantize))
    quantizer = stub.quantizer
    assert isinstance(quantizer, Quantizer)
    with torch.no_grad():
        quantizer.scale.mul_(30)
    found = verify_stages(model, X, {"fused": given["fused"], "quantized": given["quantized"]}, layers=True)
    assert found.first_below(30)[1].module == "3"
    assert found.largest_drop()[1].module == "3"
    assert found.first_below(-1000) is None


def test_equal_models():
    model = network()
    found = verify_stages(model, X, {"again": model})
    assert found.stages[0].sqnr == math.inf
    assert found.largest_drop() is None
    assert found.to_dict()["stages"][0]["sqnr"] is None


class TestBadInput:
    @pytest.mark.parametrize(
        ("given", "message"),
        [({}, "stages is empty"), ({"a": 3}, r"stages\['a'\] is 3"), ({"a": "no.onnx"}, "there is no file 'no.onnx'")],
        ids=["none", "a number", "no file"],
    )
    def test_stages(self, given, message):
        with pytest.raises(InputError, match=message):
            verify_stages(network(), X, given)

    def test_no_inputs(self):
        with pytest.raises(InputError, match="args is None"):
            verify_stages(network(), None, {"a": network()})

    def test_outputs_of_another_shape(self):
        with pytest.raises(InputError, match="cannot be compared"):
            verify_stages(network(), X, {"a": nn.Flatten()})


def test_an_engine_that_cannot_run_here(tmp_path):
    (tmp_path / "net.engine").write_bytes(b"engine")
    with pytest.raises((CompileError, InputError), match=r"net\.engine"):
        verify_stages(network(), X, {"engine": tmp_path / "net.engine"}, backend="sensai")
    if not torch.cuda.is_available():
        with pytest.raises((CompileError, ImportError), match=r"net\.engine was not run|not installed|tensorrt"):
            verify_stages(network(), X, {"engine": tmp_path / "net.engine"}, backend="tensorrt")
