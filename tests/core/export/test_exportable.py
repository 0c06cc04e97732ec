"""Calls that are exported in another form."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import export_onnx, transform
from support.nets import net, random_input


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_a_map_without_a_batch_is_unfolded(tmp_path, trace):
    model, x = net(lambda _self, x: F.unfold(x, 3, padding=1, stride=2)), random_input(2, 7, 8)
    assert export_onnx(transform(model, x, patterns=[], trace=trace), x, tmp_path / "m.onnx").difference.max_abs == 0


@pytest.mark.parametrize("trace", [None, "symbolic", "export"])
def test_a_randomized_leaky_relu_has_its_mean_slope(tmp_path, trace):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.RReLU(0.1, 0.5)

        def forward(self, x):
            return self.first(x) + F.rrelu(x - 1)

    model, x = Two().eval(), random_input(2, 3)
    with torch.no_grad():
        wanted = F.leaky_relu(x, 0.3) + F.leaky_relu(x - 1, 11 / 48)
        torch.testing.assert_close(model(x), wanted)
    given = model if trace is None else transform(model, x, patterns=[], trace=trace)
    assert export_onnx(given, x, tmp_path / "m.onnx").difference.max_abs < 1e-6
