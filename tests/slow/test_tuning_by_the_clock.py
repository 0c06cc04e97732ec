"""A search by the clock, from beginning to end, with engines that run here."""

import math

import torch
from torch import nn

from embedl_deploy import compile, export_onnx, transform  # noqa: A004
from embedl_deploy.quantize import quantize
from embedl_deploy.tuning import tune


class Wide(nn.Module):
    """Convolutions that take most of the time, so that a noisy machine cannot hide what INT8 saves."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64))
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.body(x) + x)
        return self.head(x.mean((2, 3)))


def test_the_fastest_engine_is_found_and_nothing_is_slower_than_float32(tmp_path):
    torch.manual_seed(0)
    model, x = Wide().eval(), torch.randn(1, 3, 40, 40)
    result = transform(model, x, backend="onnxruntime")
    state = tmp_path / "state.json"
    how = {"objective": "latency", "threads": 1, "rewrites": False, "progress": False, "state": state}
    found = tune(result, [x, torch.randn(1, 3, 40, 40)], seconds=0.0, **how)
    trials = {trial.name: trial for trial in found.trials}
    assert list(trials)[:2] == ["float32", "everything"]
    float32 = trials["float32"]
    assert float32.accuracy == math.inf and float32.quantized == 0
    # VNNI or not, a convolution of 64 channels is much faster in INT8
    assert trials["everything"].objective < float32.objective
    assert found.best.objective <= float32.objective
    assert found.best.quantized > 0 and found.objective_name == "latency"
    again = tune(result, [x, torch.randn(1, 3, 40, 40)], seconds=0.0, **{**how, "state": None}, keep=1000.0)
    assert again.best.name == "float32"  # nothing else is accurate enough

    quantized = quantize(found.result, [x], found.config, progress=False)
    export_onnx(quantized, x, tmp_path / "net.onnx", tolerance=None)
    report = compile(tmp_path / "net.onnx", backend="onnxruntime", threads=1).report
    assert [layer.type for layer in report.layers if layer.modules and "body" in layer.modules[0]] == ["QLinearConv"]
