"""Weights in NVFP4, MXFP8 and MXFP4 on their way to an engine."""

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from embedl_deploy import check, compile, export_onnx, transform  # noqa: A004
from embedl_deploy.backend import get_backend
from embedl_deploy.errors import CompileError
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, freeze, quantize
from support.nets import random_input

X = random_input(16, 64)
#: Where the numbers are read: as the engine's report has them.
TYPES = {Precision.NVFP4: "float4_e2m1", Precision.MXFP8: "float8_e4m3", Precision.MXFP4: "float4_e2m1"}


@pytest.fixture(params=TYPES, scope="module")
def precision(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.float16], scope="module", ids=["float32", "float16"])
def exported(request, precision, tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 32)).eval()
    quantized = quantize(
        transform(model, X, backend="tensorrt"), config=QuantConfig(None, TensorQuantConfig(precision))
    )
    path = tmp_path_factory.mktemp("blocks") / "m.onnx"
    return export_onnx(quantized, X, path, dtype=request.param), freeze(quantized)


def test_scales_are_floats_and_the_checker_has_nothing_against_the_file(exported, precision):
    file = onnx.load(exported[0].path)
    constants = [a.t for node in file.graph.node for a in node.attribute if a.type == a.TENSOR]
    types = {TensorProto.DataType.Name(each.data_type) for each in (*file.graph.initializer, *constants)}
    assert "FLOAT8E8M0" not in types
    assert ("FLOAT4E2M1" in types) is (precision.bits == 4)
    report = check(exported[0].path, "tensorrt")
    assert report.ok and report.findings == () and report.undecided == ()


def test_the_file_computes_what_the_frozen_model_does(exported):
    assert exported[0].sqnr > 60
    assert not any(isinstance(part, nn.Linear) and part.weight is not None for part in exported[1].modules())


@pytest.fixture
def rtx():
    compiler = next(compiler for compiler in get_backend("tensorrt").compilers if "rtx" in compiler.name)
    if missing := compiler.missing():
        pytest.skip(missing)
    return compiler.name


def test_the_engine_reads_the_numbers(exported, precision, rtx):
    report = compile(exported[0].path, backend="tensorrt", target="sm120", compiler=rtx).report
    constants = [tensor for layer in report.layers for tensor in layer.constants]
    read = {tensor.dtype: tensor.shape for tensor in constants if tensor.dtype == TYPES[precision]}
    assert read
    of_weights = (64 * 128 + 128 * 32) * precision.bits / 8
    assert of_weights < report.weight_bytes < of_weights * 1.25 + 4 * 160 + 300  # scales and biases


@pytest.mark.parametrize("target", ["sm86", "sm89"])
def test_a_target_without_four_bits_is_told(exported, precision, rtx, target):
    if precision.bits == 8:
        return
    with pytest.raises(CompileError, match=r"The target has no FP4: .*Compile for sm120, or quantize weights to INT4"):
        compile(exported[0].path, backend="tensorrt", target=target, compiler=rtx)
