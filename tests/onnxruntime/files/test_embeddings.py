"""Tables of embeddings: rows of integers are gathered, and dequantized then."""

import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import helper, numpy_helper, shape_inference
from torch import nn

from embedl_deploy import check, export_onnx, transform
from embedl_deploy import compile as build
from embedl_deploy.artifact import read_onnx
from embedl_deploy.modules import FusedEmbedding
from embedl_deploy.quantize import (
    Precision,
    QuantConfig,
    TensorQuantConfig,
    quantization_report,
    quantize,
)
from embedl_deploy_onnxruntime import DYNAMIC, U8S7, U8S8, WEIGHTS_4BIT, WEIGHTS_8BIT
from embedl_deploy_onnxruntime.files import finish
from support.onnxruntime_optimized import optimized

ROWS, WIDTH = 500, 24
TOKENS = torch.randint(ROWS, (2, 7), generator=torch.Generator().manual_seed(0))


class Tagger(nn.Module):
    """Tokens to scores, by a table that the last product may share."""

    def __init__(self, *, tied=False, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(ROWS, WIDTH, **settings)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, ROWS if tied else 5, bias=False)
        if tied:
            self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.norm(self.table(tokens)))


def rounded(table, axis):
    """A table as INT8 has it: symmetric, 127 steps up to the largest number of a row, a column, or all."""
    largest = np.abs(table).max(axis=axis, keepdims=axis is not None)
    scale = (largest / 127).astype(np.float32)
    return np.rint(table / np.where(scale == 0, 1, scale)).clip(-127, 127) * scale


SCALES = {
    "of each row": (TensorQuantConfig(per_channel=True), 1),
    "of each column": (TensorQuantConfig(per_channel=True, axis=1), 0),
    "of the table": (TensorQuantConfig(), None),
}


@pytest.mark.parametrize("integer_weights", [True, False])
@pytest.mark.parametrize("scales", SCALES)
def test_rows_are_what_rounding_makes_of_them(tmp_path, scales, integer_weights):
    weight, axis = SCALES[scales]
    net = nn.Sequential(nn.Embedding(ROWS, WIDTH)).eval()
    config = QuantConfig(activation=None, weight=weight)
    quantized = quantize(transform(net, TOKENS, backend="onnxruntime"), config=config)
    export_onnx(quantized, TOKENS, tmp_path / "m.onnx", integer_weights=integer_weights)
    kernels, found = optimized(tmp_path / "m.onnx", TOKENS)
    wanted = rounded(net[0].weight.detach().numpy(), axis)[TOKENS]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-7)
    assert set(kernels) == ({"Gather", "Cast", "Mul"} if axis == 1 else {"Gather", "DequantizeLinear"})
    report = check(tmp_path / "m.onnx", backend="onnxruntime")
    assert report.ok
    assert not [finding for finding in report.findings if finding.rule == "ORT-17"]


@pytest.mark.parametrize(
    "config", [U8S8, U8S7, DYNAMIC, WEIGHTS_8BIT, WEIGHTS_4BIT], ids=["U8S8", "U8S7", "DYNAMIC", "8BIT", "4BIT"]
)
def test_the_table_takes_a_quarter_of_the_memory(tmp_path, config):
    net = Tagger(padding_idx=0).eval()
    quantized = quantize(transform(net, TOKENS, backend="onnxruntime"), [TOKENS], config)
    exported = export_onnx(quantized, TOKENS, tmp_path / "m.onnx", integer_weights=True, dynamic_batch=True)
    assert exported.difference.max_rel < 1e-5
    tables = [v for v in read_onnx(tmp_path / "m.onnx").graph.initializers.values() if v.shape == [ROWS, WIDTH]]
    assert [table.dtype.name for table in tables] == ["INT8"]
    with torch.no_grad():
        error = (quantized(TOKENS) - net(TOKENS)).norm() / net(TOKENS).norm()
    assert error < (0.15 if config is WEIGHTS_4BIT else 0.03)


def test_in_float16(tmp_path):
    quantized = quantize(transform(Tagger().eval(), TOKENS, backend="onnxruntime"), [TOKENS], WEIGHTS_8BIT)
    export_onnx(quantized, TOKENS, tmp_path / "m.onnx", dtype=torch.float16)
    _, found = optimized(tmp_path / "m.onnx", TOKENS, settings={"session.qdq_matmulnbits_accuracy_level": "0"})
    torch.testing.assert_close(found.float(), quantized(TOKENS).detach(), rtol=0, atol=1e-2)


def test_a_table_that_the_last_product_shares_is_stored_once(tmp_path):
    net = Tagger(tied=True).eval()
    quantized = quantize(transform(net, TOKENS, backend="onnxruntime"), config=DYNAMIC)
    exported = export_onnx(quantized, TOKENS, tmp_path / "m.onnx", integer_weights=True)
    assert exported.difference.max_rel < 1e-5
    stored = read_onnx(tmp_path / "m.onnx").graph.initializers.values()
    large = [value for value in stored if math.prod(value.shape) >= ROWS * WIDTH]
    assert [value.dtype.name for value in large] == ["INT8"]


def test_the_engine_reads_integers(tmp_path):
    quantized = quantize(transform(Tagger().eval(), TOKENS, backend="onnxruntime"), [TOKENS])
    export_onnx(quantized, TOKENS, tmp_path / "m.onnx")
    layers = build(tmp_path / "m.onnx", backend="onnxruntime", threads=1).report.layers_of("table")
    assert [layer.outputs[0].dtype for layer in layers if layer.type == "Gather"][:1] == ["int8"]


def test_other_forms_are_left_as_they_are():
    """Zero points of rows, and scales of blocks."""
    numbers = np.arange(32, dtype=np.int8).reshape(4, 8)
    for name, axis, scale, zero_point in (
        ("zero points", 0, np.full(4, 0.5, np.float32), np.arange(4, dtype=np.int8)),
        ("blocks", 1, np.full((4, 2), 0.5, np.float32), np.zeros((4, 2), np.int8)),
    ):
        settings = {"axis": axis, "block_size": 4 if scale.ndim == 2 else 0}
        nodes = [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["table"], **settings),
            helper.make_node("Gather", ["table", "ids"], ["y"]),
        ]
        stored = [numpy_helper.from_array(v, n) for n, v in (("w", numbers), ("s", scale), ("z", zero_point))]
        ids = helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [3])
        given = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3, 8])
        graph = helper.make_graph(nodes, "g", [ids], [given], stored)
        model = ir.from_proto(shape_inference.infer_shapes(helper.make_model(graph)))
        finish(model)
        assert [node.op_type for node in model.graph] == ["DequantizeLinear", "Gather"], name


@pytest.mark.parametrize("precision", [Precision.INT16, Precision.INT4, Precision.FP8])
def test_other_formats_stay_in_float_and_the_report_says_why(precision):
    config = replace(WEIGHTS_8BIT, weight=TensorQuantConfig(precision, per_channel=True))
    report = quantization_report(quantize(transform(Tagger(), TOKENS, backend="onnxruntime"), config=config))
    reason = {(p.path, p.label): p.rule for p in report.not_quantized}["table", "weight"]
    assert "gathers rows of numbers of 8 bits only" in reason


def test_a_table_that_changes_when_it_is_read_is_left_alone():
    result = transform(Tagger(max_norm=1.0).eval(), TOKENS, backend="onnxruntime")
    assert not any(isinstance(part, FusedEmbedding) for part in result.model.modules())
    assert any("max_norm=1.0" in str(line) for line in result.report.why_not("table"))


def test_a_table_of_integers_is_left_alone(tmp_path):
    """What looks up an index is no number to be rounded."""

    class Renumbered(nn.Module):
        def __init__(self):
            super().__init__()
            self.numbers = nn.Embedding.from_pretrained(torch.arange(ROWS).flip(0)[:, None])
            self.table = nn.Embedding(ROWS, WIDTH)

        def forward(self, tokens):
            return self.table(self.numbers(tokens)[..., 0])

    result = transform(Renumbered().eval(), TOKENS, backend="onnxruntime")
    assert "its table is in torch.int64" in str(result.report.why_not("numbers"))
    quantized = quantize(result, config=WEIGHTS_8BIT)
    assert export_onnx(quantized, TOKENS, tmp_path / "m.onnx").difference.max_rel < 1e-5
