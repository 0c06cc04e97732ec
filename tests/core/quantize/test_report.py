"""The account of what was quantized."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import (
    LayerQuantConfig,
    Precision,
    QuantConfig,
    TensorQuantConfig,
    calibrate,
    freeze,
    quantization_report,
    quantize,
)
from support.nets import net
from support.quantizable import IMAGES, ROWS, fused, inserted, perceptron, residual_block, scales_of


def test_points_come_in_graph_order_with_the_stub_that_each_has():
    report = quantization_report(inserted(perceptron()))
    assert [(p.path, p.label, p.node, p.module, p.stub) for p in report.points] == [
        ("first", "input 0", "first_1", "QLinear", "x_quant"),
        ("first", "weight", "first_1", "QLinear", "first.weight_fake_quant"),
        ("second", "input 0", "second_1", "QLinear", "first_1_quant"),
        ("second", "weight", "second_1", "QLinear", "second.weight_fake_quant"),
    ]
    assert all(p.quantized and p.rule == "configuration" for p in report.points)


def test_every_quantizer_is_a_point_and_every_point_names_one():
    model = inserted(residual_block())
    stubs = {f"{p.stub}.quantizer" for p in quantization_report(model).quantized}
    assert stubs == set(scales_of(model))


def test_a_point_in_float_has_a_rule_and_no_stub():
    report = quantization_report(inserted(perceptron(), QuantConfig(skip=["first"])))
    assert len(report.not_quantized) == 2
    assert all(not p.quantized and p.stub == "" and p.rule == "skip: 'first'" for p in report.not_quantized)
    assert set(report.points) == {*report.quantized, *report.not_quantized}


def test_as_text():
    config = QuantConfig(skip=["second"], overrides={"first": LayerQuantConfig(TensorQuantConfig(Precision.FP8), None)})
    model = net(lambda self, x: (self.second(self.first(x)), x @ x.T), first=nn.Linear(12, 12), second=nn.Linear(12, 2))
    lines = [line.strip() for line in str(quantization_report(inserted(model, config))).splitlines()]
    assert lines == [
        "Quantization: 1 of 4 points (0 weights) by 1 quantizers; policy: none",
        "1 × FP8 minmax",
        "In float:",
        "first weight (QLinear): override for 'first': weights in float",
        "second input 0 (QLinear): skip: 'second'",
        "second weight (QLinear): skip: 'second'",
        "Without a quantization point:",
        "matmul (matmul): no fusion has taken it",
    ]


def test_shared_quantizers_count_once():
    text = str(quantization_report(inserted(residual_block())))
    assert text.startswith("Quantization: 11 of 11 points (4 weights) by 10 quantizers")


def test_it_stays_with_the_model():
    model = inserted(residual_block())
    report = quantization_report(model)
    calibrate(model, [IMAGES])
    assert quantization_report(model) is report
    assert quantization_report(freeze(model)) == report


@pytest.mark.parametrize("model", [fused(perceptron()).model], ids=["fused"])
def test_a_model_without_quantizers_has_none(model):
    with pytest.raises(QuantizationError, match="is not a quantized model: it has no quantization report"):
        quantization_report(model)


def test_a_quantizer_says_what_it_is():
    model = inserted(perceptron())
    assert "INT8 minmax, not calibrated" in repr(model)
    calibrate(model, [ROWS])
    assert "not calibrated" not in repr(model)
    assert f"INT8 minmax, scale {float(ROWS.abs().max()) / 127:.3g}" in repr(model.x_quant)
    assert "…" in repr(model.get_submodule("first").weight_fake_quant)
    assert "INT8 per channel minmax, (16, 12)" in repr(freeze(model))


class TestNothingIsQuantized:
    """An error that tells why, with the reason for each place."""

    def message(self, model, x, config=None, **settings):
        with pytest.raises(QuantizationError) as caught:
            quantize(transform(model, x, **settings), [x], config, progress=False)
        return str(caught.value)

    def test_because_no_pattern_takes_it(self):
        model = net(lambda m, x: m.bilinear(x, x), bilinear=nn.Bilinear(4, 4, 4))
        found = self.message(model, torch.randn(2, 4), backend="tensorrt")
        assert found.startswith(
            "Nothing in the model was quantized: bilinear (Bilinear): no fusion has taken it. Skip fewer"
        )

    def test_because_all_of_it_is_skipped(self):
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
        found = self.message(model, torch.randn(2, 4), QuantConfig(skip=["*"]), backend="tensorrt")
        assert found.startswith("Nothing in the model was quantized: 0 input 0: skip: '*'; 0 weight: skip: '*'; ")
        assert "; 2 more. Skip fewer" in found

    def test_because_there_is_nothing(self):
        found = self.message(nn.Sequential(nn.ReLU()), torch.randn(2, 4), patterns=[])
        assert "no pattern has fused anything" in found


def test_what_transform_returned_has_none():
    with pytest.raises(
        QuantizationError, match=r"what transform returned.*Pass what quantize\(result, data\) returned"
    ):
        quantization_report(fused(perceptron()))
