"""A softmax over many keys, whose fixed scale is too coarse for it, is told of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import transform
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantization_report, quantize
from support.nets import random_input


class Attention(nn.Module):
    """Attention that is spread evenly, the more so the smaller ``sharpness`` is, and a product."""

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.out = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.scaled_dot_product_attention(x * self.sharpness, x, x))


def quantized(keys: int, sharpness: float = 0.1, config: QuantConfig | None = None) -> nn.Module:
    model, x = Attention(sharpness).eval(), random_input(2, keys, 8) + 1
    return quantize(transform(model, x, backend="tensorrt"), [x], config, progress=False)


def test_an_even_softmax_over_many_keys_vanishes(caplog):
    model = quantized(600)
    report = quantization_report(model)
    assert report.vanishing == (("scaled_dot_product_attention softmax_quant", pytest.approx(1.0, abs=0.01)),)
    assert "scaled_dot_product_attention softmax_quant: 100%" in str(report)
    (warning,) = caplog.messages
    assert "100 % of its sum becomes zero" in warning
    skipped = quantized(600, config=QuantConfig(skip=["scaled_dot_product_attention"]))
    assert quantization_report(skipped).vanishing == ()


FP8 = QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8))


@pytest.mark.parametrize(
    ("keys", "sharpness", "config"), [(100, 0.1, None), (600, 10.0, None), (600, 0.1, FP8)], ids=["few", "sharp", "fp8"]
)
def test_others_do_not(keys, sharpness, config, caplog):
    assert quantization_report(quantized(keys, sharpness, config)).vanishing == ()
    assert not caplog.messages


@pytest.mark.parametrize(("seeing", "share"), [(300, 1.0), (0, 0.0)], ids=["half of them", "none"])
def test_queries_that_see_no_key_do_not_count(seeing, share):
    class Padded(nn.Module):
        def forward(self, x, mask):
            return F.scaled_dot_product_attention(x * 0.1, x, x, mask)

    x = random_input(2, 600, 8) + 1
    mask = (torch.arange(600) < seeing)[:, None].expand(600, 600)
    model = quantize(transform(Padded().eval(), (x, mask), backend="tensorrt"), [(x, mask)], progress=False)
    vanishing = [found for _, found in quantization_report(model).vanishing]
    assert vanishing == ([pytest.approx(share, abs=0.01)] if share else [])


def test_what_reads_it_is_calibrated_in_float():
    x = random_input(2, 600, 8) + 1
    read = F.scaled_dot_product_attention(x * 0.1, x, x)
    model = quantized(600)
    (point,) = [p for p in quantization_report(model).points if (p.path, p.label) == ("out", "input 0")]
    scale = model.get_submodule(point.stub).quantizer.scale
    assert float(scale) == pytest.approx(float(read.abs().max()) / 127, rel=1e-4)
