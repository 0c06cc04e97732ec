"""What ONNX Runtime computes of a file in the comparison, where its own optimizer would compute something else."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import compile as build
from embedl_deploy import export_onnx, transform
from embedl_deploy.compiling import run_engine
from embedl_deploy.quantize import quantize
from embedl_deploy.verify import signal_to_noise
from support.nets import random_input


class Mixer(nn.Module):
    """Products over places, between norms over channels (Tolstikhin et al. 2021)."""

    def __init__(self, places, channels):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, channels, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.over_places = nn.ModuleList(nn.Linear(places, places) for _ in range(2))

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        for norm, product in zip(self.norms, self.over_places, strict=True):
            x = x + F.gelu(product(norm(x).transpose(1, 2))).transpose(1, 2)
        return x


@pytest.mark.parametrize("channels", [16, 24], ids=["as many channels as places", "more channels than places"])
def test_a_transpose_stays_on_its_side_of_a_norm(tmp_path, channels):
    """The runtime (1.31) moves it, and leaves the axis of the norm: it fails, or the numbers are others."""
    x = random_input(1, 3, 16, 16)
    model = quantize(transform(Mixer(16, channels).eval(), x, backend="onnxruntime"), [x], progress=False)
    written = export_onnx(model, x, tmp_path / "m.onnx")
    assert written.sqnr > 40
    engine = build(tmp_path / "m.onnx", backend="onnxruntime", threads=1)
    (found,) = run_engine(engine.path, x, backend="onnxruntime").values()
    assert signal_to_noise([model(x).detach()], [found]) > 40
