"""Weights in NVFP4, MXFP8 and MXFP4 in ONNX Runtime, which has neither E2M1 nor E8M0."""

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from embedl_deploy import check, compile, export_onnx, transform  # noqa: A004
from embedl_deploy.compiling import run_engine
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, freeze, quantization_report, quantize
from support.nets import random_input

X = random_input(16, 64)


@pytest.mark.parametrize("precision", [Precision.NVFP4, Precision.MXFP8, Precision.MXFP4])
def test_numbers_are_stored_in_formats_that_it_has_and_the_engine_runs(precision, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 32)).eval()
    result = transform(model, X, backend="onnxruntime")
    quantized = quantize(result, config=QuantConfig(None, TensorQuantConfig(precision), policy="dynamic"))
    exported = export_onnx(quantized, X, tmp_path / "m.onnx")
    file = onnx.load(exported.path)
    constants = [a.t for node in file.graph.node for a in node.attribute if a.type == a.TENSOR]
    types = {TensorProto.DataType.Name(each.data_type) for each in (*file.graph.initializer, *constants)}
    assert types <= {"FLOAT8E4M3FN", "FLOAT", "INT64"} and "FLOAT8E4M3FN" in types
    assert check(exported.path, "onnxruntime").ok
    compile(exported.path, tmp_path / "m.engine", backend="onnxruntime")
    (found,) = run_engine(tmp_path / "m.engine", [X], backend="onnxruntime").values()
    torch.testing.assert_close(found, freeze(quantized)(X), rtol=0, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed", "all", "dynamic"])
def test_activations_stay_in_float(policy):
    """It has no operator that finds scales of blocks, and would compute the product in float."""
    result = transform(nn.Sequential(nn.Linear(64, 32)).eval(), X, backend="onnxruntime")
    config = QuantConfig(TensorQuantConfig(Precision.NVFP4), TensorQuantConfig(Precision.NVFP4), policy=policy)
    report = quantization_report(quantize(result, [X], config, progress=False))
    assert [point.label for point in report.quantized] == ["weight"]
    assert "the runtime has no operator that finds scales of blocks" in report.not_quantized[0].rule
