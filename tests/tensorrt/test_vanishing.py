"""A softmax over many keys, for which a scale of 1/127 is too coarse, gets that of the data, or is told of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import transform
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantization_report, quantize
from support.nets import random_input


class Attention(nn.Module):
    """Attention that is spread evenly, the more so the smaller ``sharpness`` is, and a product.

    The first query has one key of its own if ``one_is_sharp``.
    """

    def __init__(self, sharpness: float, *, one_is_sharp: bool = False) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.one_is_sharp = one_is_sharp
        self.out = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query = x * self.sharpness
        if self.one_is_sharp:
            query = torch.cat((100 * x[:, :1], query[:, 1:]), 1)
        return self.out(F.scaled_dot_product_attention(query, x, x))


def quantized(keys: int, sharpness: float = 0.1, config: QuantConfig | None = None, *, one_is_sharp=False) -> nn.Module:
    model, x = Attention(sharpness, one_is_sharp=one_is_sharp).eval(), random_input(2, keys, 8) + 1
    return quantize(transform(model, x, backend="tensorrt"), [x], config, progress=False)


PLACE = "scaled_dot_product_attention softmax_quant"


def softmax_scale(model: nn.Module) -> float:
    return float(model.get_submodule("scaled_dot_product_attention.softmax_quant").quantizer.scale)


@pytest.mark.parametrize("keys", [150, 600])
def test_an_even_softmax_over_many_keys_has_the_range_of_the_data(keys, caplog):
    """Weights of 1/150 are rounded to 1/127, weights of 1/600 to zero."""
    x = random_input(2, keys, 8) + 1
    model = quantized(keys)
    weights = (x * 0.1 @ x.mT / 8**0.5).softmax(-1)
    loss = ((weights * 127).round() / 127 - weights).square().sum() / weights.square().sum()
    assert softmax_scale(model) == pytest.approx(float(weights.max()) / 127, rel=1e-5)
    report = quantization_report(model)
    assert report.vanishing == () and not caplog.messages
    (found,) = [finding for finding in report.findings if finding.tensor == PLACE]
    assert not found.serious and f"would leave {-10 * loss.log10():.1f} dB of it" in str(found)
    torch.manual_seed(0)
    float_model = Attention(0.1).eval()
    float_model.out = model.out.linear
    wanted = float_model(x)
    assert (model(x) - wanted).square().sum() < 1e-3 * wanted.square().sum()


def test_where_one_weight_is_large_the_rest_vanishes(caplog):
    model = quantized(600, one_is_sharp=True)
    report = quantization_report(model)
    assert report.vanishing == ((PLACE, pytest.approx(1.0, abs=0.01)),)
    assert f"{PLACE}: 100%" in str(report)
    (warning,) = caplog.messages
    assert "100 % of its sum becomes zero" in warning
    skipped = quantized(600, config=QuantConfig(skip=["scaled_dot_product_attention"]), one_is_sharp=True)
    assert quantization_report(skipped).vanishing == ()


FP8 = QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8))


@pytest.mark.parametrize(
    ("keys", "sharpness", "config"), [(20, 0.1, None), (600, 10.0, None), (600, 0.1, FP8)], ids=["few", "sharp", "fp8"]
)
def test_others_have_the_known_range(keys, sharpness, config, caplog):
    model = quantized(keys, sharpness, config)
    assert quantization_report(model).vanishing == ()
    assert softmax_scale(model) == pytest.approx(1 / (448 if config else 127))
    assert not caplog.messages


@pytest.mark.parametrize("seeing", [300, 0], ids=["half of them", "none"])
def test_queries_that_see_no_key_do_not_count(seeing):
    class Padded(nn.Module):
        def forward(self, x, mask):
            return F.scaled_dot_product_attention(x * 0.1, x, x, mask)

    x = random_input(2, 600, 8) + 1
    mask = (torch.arange(600) < seeing)[:, None].expand(600, 600)
    model = quantize(transform(Padded().eval(), (x, mask), backend="tensorrt"), [(x, mask)], progress=False)
    weights = (x * 0.1 @ x.mT / 8**0.5).softmax(-1)[:, :seeing]
    assert softmax_scale(model) == pytest.approx(float(weights.max()) / 127 if seeing else 1 / 127, rel=1e-5)
    assert quantization_report(model).vanishing == ()


def test_what_reads_it_is_calibrated_in_float():
    x = random_input(2, 600, 8) + 1
    read = F.scaled_dot_product_attention(x * 0.1, x, x)
    model = quantized(600)
    (point,) = [p for p in quantization_report(model).points if (p.path, p.label) == ("out", "input 0")]
    scale = model.get_submodule(point.stub).quantizer.scale
    assert float(scale) == pytest.approx(float(read.abs().max()) / 127, rel=1e-4)
