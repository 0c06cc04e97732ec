"""What the rules say of TensorRT for RTX, asked of TensorRT for RTX, where it is installed; it needs no GPU."""

import onnx_ir as ir
import pytest

from embedl_deploy import check
from embedl_deploy.backend import CompileOptions, CompilerRefusedError, get_backend
from support.tensorrt_cases import ASKED, IN_EIGHT_BITS, IN_FLOAT


@pytest.fixture
def build(tmp_path):
    """Ask TensorRT for RTX: the layers of the engine, or ``None`` where it refuses the file."""
    compiler = next(compiler for compiler in get_backend("tensorrt").compilers if "rtx" in compiler.name)
    if missing := compiler.missing():
        pytest.skip(missing)

    def run(case):
        path = tmp_path / "case.onnx"
        ir.save(case.model(), path)
        try:
            return compiler.build(path, CompileOptions(target=case.target), lambda *step: None).layers
        except CompilerRefusedError:
            return None

    return run


@pytest.mark.parametrize("case", ASKED, ids=str)
def test_the_compiler_agrees(case, build):
    assert (build(case) is None) is case.refused


def multiplies_eight_bits(layers):
    """Whether a convolution or product multiplies two tensors of eight bits."""
    products = [layer for layer in layers if layer.type in ("correlation", "deconv", "gemm")]
    types = [{tensor.dtype for tensor in (*layer.inputs, *layer.constants)} for layer in products]
    return any(read & {"int8", "float8_e4m3"} for read in types)


@pytest.mark.parametrize("case", IN_FLOAT, ids=str)
def test_what_is_said_to_be_computed_in_float_is(case, build):
    (finding,) = [finding for finding in check(case.model(), "tensorrt").findings if finding.rule == case.rule][:1]
    assert "computed in float" in finding.message or "computes it in float" in finding.message
    assert not multiplies_eight_bits(build(case))


@pytest.mark.parametrize("case", IN_EIGHT_BITS, ids=str)
def test_what_keeps_the_rule_is_computed_in_eight_bits(case, build):
    assert multiplies_eight_bits(build(case))
