"""Bias correction and learned rounding: means agree, errors shrink, and what cannot be corrected is said."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.quantize import (
    LayerQuantConfig,
    Precision,
    QuantConfig,
    Quantizer,
    TensorQuantConfig,
    freeze,
    quantization_report,
    quantize,
)
from support.nets import net, random_input, scrambled

IMAGES = random_input(24, 3, 12, 12)
#: Those of them that corrections learn from: a quarter is held back.
LEARNED = IMAGES[[i for i in range(24) if i % 4 != 3]]
INT4 = QuantConfig(weight=TensorQuantConfig(Precision.INT4, per_channel=True))


def convolutions():
    torch.manual_seed(0)
    return scrambled(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding="same", bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
            *(nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 16, 3, dilation=2), nn.SiLU()),
            *(nn.Conv2d(16, 16, 1, groups=2, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
        )
    ).eval()


def attention():
    return nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()


def transformed(model, x):
    return transform(model, (x,), backend="tensorrt")


def error(model, x, wanted):
    return float((model(x) - wanted).detach().square().sum())


@pytest.mark.parametrize("config", [QuantConfig(), INT4], ids=["int8", "int4 weights"])
class TestConvolutions:
    def test_errors_shrink(self, config):
        result = transformed(convolutions(), IMAGES)
        wanted = result.model(IMAGES)
        errors = [
            error(quantize(result, [IMAGES], config, progress=False, **method), IMAGES, wanted)
            for method in ({}, {"bias_correction": True}, {"learned_rounding": True})
        ]
        assert errors[1] < 0.9 * errors[0]
        assert errors[2] < errors[1]

    @pytest.mark.parametrize("method", ["bias_correction", "learned_rounding"])
    def test_means_agree(self, config, method):
        result = transformed(convolutions(), IMAGES)
        quantized = quantize(result, [IMAGES], config, progress=False, **{method: True})
        difference = (quantized(LEARNED) - result.model(LEARNED)).mean(0)
        assert difference.abs().max() < 1e-3 * result.model(IMAGES).abs().max()

    @pytest.mark.parametrize("method", ["bias_correction", "learned_rounding"])
    def test_the_report_has_every_layer(self, config, method):
        report = quantization_report(
            quantize(transformed(convolutions(), IMAGES), [IMAGES], config, progress=False, **{method: True})
        )
        weights = [point.path for point in report.quantized if point.label == "weight"]
        assert [c.where for c in report.corrections] == [*weights, ""]
        assert not any(c.declined for c in report.corrections)


def test_learned_weights_are_on_the_grid():
    quantized = quantize(transformed(convolutions(), IMAGES), [IMAGES], INT4, learned_rounding=True, progress=False)
    for module in quantized.modules():
        quantizer = getattr(getattr(module, "weight_fake_quant", None), "quantizer", None)
        if isinstance(quantizer, Quantizer):
            weight = module.folded_weight() if hasattr(module, "folded_weight") else module.linear.weight
            torch.testing.assert_close(quantizer(weight), weight)
    torch.testing.assert_close(freeze(quantized)(IMAGES), quantized(IMAGES))


def test_the_original_is_not_changed():
    result = transformed(convolutions(), IMAGES)
    before = {name: tensor.clone() for name, tensor in result.model.state_dict().items()}
    quantize(result, [IMAGES], learned_rounding=True, progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in result.model.state_dict().items())


def test_dead_inputs_and_channels():
    model = convolutions()
    with torch.no_grad():
        model[0].weight[3] = 0
        model[1].weight[3] = model[1].bias[3] = 0
        model[3].weight[5] = 0
    for method in ("bias_correction", "learned_rounding"):
        quantized = quantize(transformed(model, IMAGES), [IMAGES], progress=False, **{method: True})
        assert torch.isfinite(quantized(IMAGES)).all()


def test_a_transformer():
    x = random_input(16, 7, 16)
    result = transformed(attention(), x)
    wanted = result.model(x)
    plain, corrected, learned = (
        error(quantize(result, [x], INT4, progress=False, **method), x, wanted)
        for method in ({}, {"bias_correction": True}, {"learned_rounding": True})
    )
    assert corrected < plain
    assert learned < 0.7 * plain


def test_only_weights():
    x = random_input(64, 12)
    result = transformed(nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4)).eval(), x)
    config = QuantConfig(activation=None, weight=INT4.weight)
    plain, learned = (quantize(result, [x], config, progress=False, learned_rounding=on) for on in (False, True))
    assert error(learned, x, result.model(x)) < 0.6 * error(plain, x, result.model(x))


def test_blocks():
    x = random_input(64, 12)
    result = transformed(nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 4)).eval(), x)
    config = QuantConfig(weight=TensorQuantConfig(Precision.INT4, block_size=8))
    plain, learned = (quantize(result, [x], config, progress=False, learned_rounding=on) for on in (False, True))
    assert error(learned, x, result.model(x)) < error(plain, x, result.model(x))


def test_a_module_that_is_called_twice():
    def forward(self, x):
        return self.block(self.block(x))

    x = random_input(8, 3, 8, 8)
    model = net(forward, block=nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()))
    quantized = quantize(transformed(model, x), [x], learned_rounding=True, progress=False)
    assert torch.isfinite(quantized(x)).all()
    assert any("more than once" in c.outcome for c in quantization_report(quantized).corrections)


def test_an_asymmetric_weight_keeps_its_rounding():
    x = random_input(32, 12) + 1  # of a mean, with which rounding shifts the outputs
    result = transformed(nn.Sequential(nn.Linear(12, 16)).eval(), x)
    config = QuantConfig(weight=TensorQuantConfig(Precision.INT4, symmetric=False))
    report = quantization_report(quantize(result, [x], config, learned_rounding=True, progress=False))
    outcome, _ = (c.outcome for c in report.corrections)
    assert outcome == "declined: it is for symmetric formats only; its bias was corrected"
    assert "Learned rounding: 0 of 1 places" in str(report)


@pytest.mark.parametrize("method", ["bias_correction", "learned_rounding"])
def test_convolutions_over_sequences_and_volumes(method):
    torch.manual_seed(0)
    for conv, norm, x in (
        (nn.Conv1d, nn.BatchNorm1d, random_input(64, 4, 20)),
        (nn.Conv3d, nn.BatchNorm3d, random_input(16, 4, 9, 9, 9)),
        (nn.ConvTranspose2d, nn.BatchNorm2d, random_input(64, 4, 6, 6)),
    ):
        x = 3 + x.cumsum(-1)  # of a mean, and neighbours are alike: in noise there would be nothing to learn
        model = scrambled(nn.Sequential(conv(4, 8, 3), norm(8), nn.ReLU(), conv(8, 8, 3, groups=2))).eval()
        config = QuantConfig(overrides={conv: LayerQuantConfig(TensorQuantConfig(), INT4.weight)})
        result = transformed(model, x)
        plain = quantize(result, [x], config, progress=False)
        corrected = quantize(result, [x], config, progress=False, **{method: True})
        assert error(corrected, x, model(x)) < 0.9 * error(plain, x, model(x))
        declined = [c.outcome for c in quantization_report(corrected).corrections if c.declined]
        learns = method == "learned_rounding" and conv is nn.ConvTranspose2d
        told = "declined: rounding is not learnt for ConvTranspose2d; its bias was corrected"
        assert declined == ([told] * 2 if learns else [])
