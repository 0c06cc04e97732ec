"""Files with weights in NVFP4, MXFP8 and MXFP4: the standard's operators, and the numbers of PyTorch."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.errors import ExportError
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, freeze, quantize
from support.nets import random_input
from support.quantizable import fused

X = random_input(8, 70)
NUMBERS = {Precision.NVFP4: "FLOAT4E2M1", Precision.MXFP8: "FLOAT8E4M3FN", Precision.MXFP4: "FLOAT4E2M1"}
SCALES = {Precision.NVFP4: "FLOAT8E4M3FN", Precision.MXFP8: "FLOAT8E8M0", Precision.MXFP4: "FLOAT8E8M0"}
OPSETS = {Precision.NVFP4: 23, Precision.MXFP8: 24, Precision.MXFP4: 24}


@pytest.fixture(params=NUMBERS, scope="module")
def quantized(request):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(70, 64), nn.ReLU(), nn.Linear(64, 48)).eval()
    return quantize(fused(model, X), config=QuantConfig(None, TensorQuantConfig(request.param))).eval()


def precision_of(model):
    return model.get_submodule("0").weight_fake_quant.quantizer.config.precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_file_computes_what_pytorch_does(quantized, dtype, tmp_path):
    precision = precision_of(quantized)
    exported = export_onnx(quantized, X, tmp_path / "m.onnx", dtype=dtype)
    assert exported.opset == OPSETS[precision]
    file = onnx.load(exported.path)
    types = {TensorProto.DataType.Name(each.data_type) for each in stored(file)}
    assert {NUMBERS[precision], SCALES[precision]} <= types
    x = X.to(dtype)
    (wanted,) = ReferenceEvaluator(file).run(None, {"input": x.numpy()})
    model = freeze(quantized).to(dtype)
    tolerance = {torch.float32: 1e-5, torch.float16: 5e-3}[dtype]
    torch.testing.assert_close(model(x), torch.from_numpy(np.asarray(wanted)), rtol=0, atol=tolerance)
    torch.testing.assert_close(run_onnx(exported.path, x)[0], model(x), rtol=0, atol=tolerance)


def stored(file):
    """Every constant of a file."""
    constants = [a.t for node in file.graph.node for a in node.attribute if a.type == a.TENSOR]
    return [*file.graph.initializer, *constants]


def test_the_weights_are_those_of_pytorch_to_the_bit(quantized, tmp_path):
    """What the reference implementation of onnx makes of the stored numbers."""
    file = onnx.load(export_onnx(quantized, X, tmp_path / "m.onnx").path)
    weights = [
        node.output[0] for node in file.graph.node if any(a.name == "block_size" and a.i for a in node.attribute)
    ]
    assert len(weights) == 2
    file.graph.output.extend(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in weights)
    found = ReferenceEvaluator(file).run(weights, {"input": X.numpy()})
    for path, weight in zip(("0", "2"), found, strict=True):
        layer = quantized.get_submodule(path)
        assert torch.equal(layer.weight_fake_quant(layer.linear.weight), torch.from_numpy(np.asarray(weight)))


def test_the_file_is_that_of_the_frozen_model_with_and_without_integer_weights(quantized, tmp_path):
    files = [
        export_onnx(quantized, X, tmp_path / "a.onnx"),
        export_onnx(quantized, X, tmp_path / "b.onnx", integer_weights=True),
        export_onnx(freeze(quantized), X, tmp_path / "c.onnx"),
    ]
    first, *others = (file.path.read_bytes() for file in files)
    assert all(other == first for other in others)
    bits = precision_of(quantized).bits + 8 / precision_of(quantized).format.block
    assert files[0].size < (70 * 64 + 64 * 48) * bits / 8 + 4200  # and what a file holds besides


def test_an_operator_set_without_the_format_is_refused(quantized, tmp_path):
    with pytest.raises(
        Exception, match=rf"opset is 20; {precision_of(quantized).name} needs {OPSETS[precision_of(quantized)]}"
    ):
        export_onnx(quantized, X, tmp_path / "m.onnx", opset=20)


@pytest.mark.filterwarnings("ignore")
def test_torchs_own_exporter_takes_the_frozen_model_alone(quantized, tmp_path):
    opset = OPSETS[precision_of(quantized)]
    settings = {"dynamo": True, "verbose": False, "opset_version": opset, "external_data": False}
    torch.onnx.export(freeze(quantized), (X,), tmp_path / "m.onnx", **settings)
    torch.testing.assert_close(run_onnx(tmp_path / "m.onnx", X)[0], quantized(X), rtol=0, atol=1e-5)
    with pytest.raises((torch.onnx.OnnxExporterError, ExportError), match=r"Call embedl_deploy.export_onnx"):
        torch.onnx.export(quantized, (X,), tmp_path / "n.onnx", **settings)
