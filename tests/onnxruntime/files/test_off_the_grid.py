"""Finished files without rounding activations, by which chaotic networks are compared."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import export_onnx, transform
from embedl_deploy.export.off_the_grid import run_without_quantizers, without_quantizers
from embedl_deploy.quantize import Quantizer, freeze, quantize
from embedl_deploy.verify import signal_to_noise
from support.nets import random_input

X = random_input(2, 4, 12, 12)


class Moving(nn.Module):
    """In its file integers are padded, pooled, turned and reshaped, and factors are folded into scales."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(4 * 36, 5)

    def forward(self, x):
        x = self.convs[0](x)
        x = x * F.relu6(x + 3) / 6  # Hardswish, as it is often written
        x = self.convs[1](F.max_pool2d(F.pad(x, (1, 0, 0, 1)), 3, 2, 1))
        x = self.convs[2](x.transpose(2, 3))
        x = F.hardswish(self.convs[3](x[:, :, :6, :6]))
        return self.head(x.flatten(1))


@pytest.mark.parametrize("integer_weights", [False, True])
def test_it_is_the_model_without_rounding_activations(tmp_path, integer_weights):
    model = quantize(transform(Moving().eval(), X, backend="onnxruntime"), [X], progress=False)
    path = tmp_path / "m.onnx"
    export_onnx(model, X, path, integer_weights=integer_weights)
    found, count = run_without_quantizers(path, model, [X])
    quantizers = {part for part in model.modules() if isinstance(part, Quantizer) and not part.is_weight}
    assert count >= len(quantizers) > 8
    wanted = without_quantizers(freeze(model, weights=False))(X).detach()
    assert signal_to_noise([wanted], found) > 70  # biases are in INT32
    assert signal_to_noise([wanted], [model(X).detach()]) < 55, "what this is about"
