"""Models that count their calls: what calibration and corrections run is not counted."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.modules import symbolic_trace
from embedl_deploy.quantize import QuantConfig, calibrate, insert_qdq, quantize
from embedl_deploy.verify import signal_to_noise
from support.nets import random_input


class Counting(nn.Module):
    """Counts in a buffer, and adds what it has counted."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        x = self.first(x).relu()
        self.calls += 1
        return self.second(x + self.calls)


def counting(*, kept_whole):
    """A model that counts: the graph itself does, or a module that it keeps whole, in the middle of it."""
    torch.manual_seed(3)
    if not kept_whole:
        return Counting().eval()
    return symbolic_trace(nn.Sequential(nn.Linear(8, 8), Counting(), nn.Linear(8, 8)).eval(), leaf_modules=[Counting])


def counted(model):
    return [buffer.item() for name, buffer in model.named_buffers() if name.endswith("calls")]


@pytest.mark.parametrize("kept_whole", [False, True])
@pytest.mark.parametrize("correction", ["none", "smooth_quant", "bias_correction", "learned_rounding"])
def test_only_the_users_calls_count(correction, kept_whole):
    model = counting(kept_whole=kept_whole)
    batches = [random_input(4, 8, seed=seed) for seed in range(5)]
    result = transform(model, args=(batches[0],), backend="tensorrt")
    options = {} if correction == "none" else {correction: True}
    quantized = quantize(result, batches, progress=False, **options)
    assert counted(quantized) == counted(result.model) == counted(model) == [0]
    assert signal_to_noise(quantized(batches[0]), model(batches[0])) > 25
    assert counted(quantized) == [1]


def test_calibrate_by_itself_counts_nothing():
    result = transform(counting(kept_whole=False), args=(random_input(4, 8),), backend="tensorrt")
    quantized = insert_qdq(result.model, result.matches, QuantConfig())
    calibrate(quantized, [random_input(4, 8, seed=seed) for seed in range(5)], progress=False)
    assert quantized.calls.item() == 0


def noting(model, seen):
    model.register_forward_hook(lambda module, args, output: seen.append(output))
    return model


def test_hooks_of_the_model_note_nothing_of_what_quantize_runs():
    seen = []
    model = nn.Sequential(nn.Linear(8, 8), noting(nn.Flatten(), seen), nn.Linear(8, 8)).eval()
    result = transform(model, args=(random_input(4, 8),), backend="tensorrt")
    quantize(result, [random_input(4, 8)], smooth_quant=True, progress=False)
    assert seen == []


def test_hooks_that_the_user_puts_on_a_quantized_model_see_each_batch():
    result = transform(counting(kept_whole=False), args=(random_input(4, 8),), backend="tensorrt")
    quantized, seen = insert_qdq(result.model, result.matches, QuantConfig()), []
    noting(quantized, seen)
    calibrate(quantized, [random_input(4, 8, seed=seed) for seed in range(3)], progress=False)
    assert len(seen) == 3
