"""Activations in NVFP4 and MXFP8 on their way to an engine."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from embedl_deploy import check, compile, export_onnx, transform  # noqa: A004
from embedl_deploy.artifact import read_onnx
from embedl_deploy.backend import get_backend
from embedl_deploy.errors import CompileError
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, freeze, quantization_report, quantize
from embedl_deploy.tensorrt.files.finishing import finish
from support.nets import net, random_input
from support.rounded_activations import Rounds, hard_rows

X = random_input(2, 8, 64)
OPERATORS = {
    Precision.NVFP4: ["TRT_FP4DynamicQuantize"],
    Precision.MXFP8: ["TRT_MXFP8DynamicQuantize", "TRT_MXFP8DequantizeLinear"],
}


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 32)).eval()


def in_blocks(model, precision, *inputs):
    config = QuantConfig(TensorQuantConfig(precision), TensorQuantConfig(precision))
    return quantize(transform(model, inputs, backend="tensorrt"), [inputs], config, progress=False).eval()


@pytest.fixture(params=OPERATORS, scope="module")
def precision(request):
    return request.param


@pytest.fixture(params=[torch.float32, torch.float16], scope="module", ids=["float32", "float16"])
def exported(request, precision, tmp_path_factory):
    model = in_blocks(mlp(), precision, X)
    path = tmp_path_factory.mktemp("blocks") / "m.onnx"
    return export_onnx(model, X, path, dtype=request.param), freeze(model), request.param


class TestFiles:
    def test_quantize_by_tensorrts_operators_and_define_them(self, exported, precision):
        file = onnx.load(exported[0].path)
        own = Counter(node.op_type for node in file.graph.node if node.domain == "trt")
        assert own[OPERATORS[precision][0]] == 2
        assert set(own) == {function.name for function in file.functions} == set(OPERATORS[precision])
        assert not any(node.op_type == "QuantizeLinear" for node in file.graph.node)
        if precision is Precision.MXFP8:  # of two activations and two weights
            assert own["TRT_MXFP8DequantizeLinear"] == 4
            assert not any(node.op_type == "DequantizeLinear" for node in file.graph.node)

    def test_compute_what_the_model_does_by_anyone_who_reads_the_definitions(self, exported):
        result, model, dtype = exported
        x = X.to(dtype)
        (found,) = ReferenceEvaluator(onnx.load(result.path)).run(None, {"input": x.numpy()})
        wanted, atol = model.to(dtype)(x).detach(), 1e-6 if dtype is torch.float32 else 0.1
        torch.testing.assert_close(torch.from_numpy(np.asarray(found)), wanted, rtol=0, atol=atol)
        torch.testing.assert_close(run_onnx(result.path, x)[0], wanted, rtol=0, atol=atol)
        assert result.sqnr > (100 if dtype is torch.float32 else 25)

    def test_the_definitions_give_the_numbers_of_core_to_the_bit(self, precision, tmp_path):
        x = hard_rows()
        path = export_onnx(Rounds(precision), x, tmp_path / "m.onnx", opset=24, tolerance=None).path
        (wanted,) = run_onnx(path, x)
        file = read_onnx(path)
        finish(file)
        ir.save(file, tmp_path / "finished.onnx")
        assert {function.name for function in file.functions.values()} == set(OPERATORS[precision])
        assert torch.equal(run_onnx(tmp_path / "finished.onnx", x)[0], wanted)

    def test_the_checker_knows_the_operators(self, exported):
        report = check(exported[0].path, "tensorrt")
        assert report.ok and report.findings == () and report.undecided == ()

    def test_a_scale_of_the_tensor_that_is_no_constant_is_found(self, exported, precision):
        if precision is Precision.MXFP8:
            return
        file = onnx.load(exported[0].path)
        quantize = next(node for node in file.graph.node if node.domain == "trt")
        scale = quantize.input[1]
        file.graph.node.insert(0, onnx.helper.make_node("ReduceMax", ["input"], ["computed"], keepdims=0))
        for node in file.graph.node:
            for index, name in enumerate(node.input):
                if name == scale:
                    node.input[index] = "computed"
        assert {finding.rule for finding in check(file, "tensorrt").findings} >= {"TRT-Q02"}

    @pytest.mark.parametrize("shape", [(8, 64), (2, 3, 4, 64)])
    def test_of_other_ranks(self, precision, shape, tmp_path):
        x = random_input(*shape)
        model = in_blocks(mlp(), precision, x)
        result = export_onnx(model, x, tmp_path / "m.onnx", dynamic_batch=True)
        more = torch.cat([x, 2 * x])
        torch.testing.assert_close(run_onnx(result.path, more)[0], model(more).detach(), rtol=0, atol=1e-5)
        file = onnx.shape_inference.infer_shapes(onnx.load(result.path))
        ranks = {
            value.name: len(value.type.tensor_type.shape.dim) for value in (*file.graph.value_info, *file.graph.input)
        }
        assert {ranks[node.input[0]] for node in file.graph.node if "DynamicQuantize" in node.op_type} == {2}
        assert check(result.path, "tensorrt").ok

    def test_what_two_products_read_is_quantized_once(self, precision, tmp_path):
        model = net(lambda m, x: m.a(x) * m.b(x), a=nn.Linear(64, 32), b=nn.Linear(64, 32))
        result = export_onnx(in_blocks(model, precision, X), X, tmp_path / "m.onnx")
        kinds = [node.op_type for node in onnx.load(result.path).graph.node]
        assert kinds.count(OPERATORS[precision][0]) == 1


def test_of_an_attention_only_the_projections_are_in_blocks(tmp_path):
    attention = nn.MultiheadAttention(64, 2, batch_first=True).eval()
    model = in_blocks(net(lambda m, x: m.attention(x, x, x)[0], attention=attention), Precision.NVFP4, X)
    points = [point for point in quantization_report(model).points if point.label != "weight"]
    assert len([point for point in points if point.stub]) == 2
    kind = "FusedScaledDotProductAttention"
    assert {point.rule for point in points if not point.stub} == {
        f"scales in blocks are for matrix products, not for an input of {kind}",
        "no input of the module is quantized",
    }
    result = export_onnx(model, X, tmp_path / "m.onnx")
    assert check(result.path, "tensorrt").ok and result.sqnr > 60


@pytest.fixture
def rtx():
    compiler = next(compiler for compiler in get_backend("tensorrt").compilers if "rtx" in compiler.name)
    if missing := compiler.missing():
        pytest.skip(missing)
    return compiler.name


class TestEngines:
    def test_products_of_nvfp4_are_computed_in_fp4_and_those_of_mxfp8_in_float(self, exported, precision, rtx):
        report = compile(exported[0].path, backend="tensorrt", target="sm120", compiler=rtx).report
        (((kind, dtype), count),) = report.weighted_by_precision.items()
        assert (kind.value, count) == ("gemm", 2)
        if precision is Precision.NVFP4:
            assert dtype == "float4_e2m1" and report.float_layers == ()
            assert {tensor.dtype for layer in report.layers for tensor in layer.inputs} >= {"float4_e2m1"}
        else:
            assert dtype == str(exported[2]).removeprefix("torch.")
            reasons = {layer.reason for layer in report.float_layers}
            assert reasons == {"quantized in the file; why the compiler does not follow is not said"}

    def test_a_target_without_four_bits_is_told(self, exported, precision, rtx):
        if precision is Precision.NVFP4:
            with pytest.raises(CompileError, match=r"The target has no FP4: .*Compile for sm120"):
                compile(exported[0].path, backend="tensorrt", target="sm89", compiler=rtx)
