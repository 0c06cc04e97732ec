"""A model that remembers is no file."""

import copy

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import ExportError
from embedl_deploy.quantize import quantize
from support.nets import random_input
from support.small_patterns import QUANTIZABLE

X = random_input(2, 4)


class Average(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(2, 4))

    def forward(self, x):
        self.mean.copy_(0.5 * self.mean + x)
        return self.fc(self.mean)


class Longer(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x)
        return torch.cat(self.seen[-3:])


class Harmless(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.calls, self.cache = nn.Linear(4, 4), 0, None

    def forward(self, x):
        self.calls += 1
        if self.cache is None:
            self.cache = torch.arange(4.0)
        return self.fc(x) + self.cache


@pytest.mark.parametrize("way", ["plain", "transformed", "int8"])
def test_a_moving_average_is_refused(way, tmp_path):
    model = Average().eval()
    before = copy.deepcopy(model.state_dict())
    result = model if way == "plain" else transform(model, X, patterns=QUANTIZABLE)
    result = quantize(result, [X], progress=False) if way == "int8" else result
    with pytest.raises(ExportError, match=r"in its first call only: forward of .* keeps 'mean' for the next call"):
        export_onnx(result, X, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    export_onnx(result, X, tmp_path / "m.onnx", tolerance=None)


def test_outputs_of_another_shape(tmp_path):
    with pytest.raises(ExportError, match=r"of the shapes \[\(4, 4\)\], after \[\(2, 4\)\]"):
        export_onnx(Longer(), X, tmp_path / "m.onnx")


def test_what_changes_no_output_does_no_harm(tmp_path):
    assert export_onnx(Harmless().eval(), X, tmp_path / "m.onnx").difference.max_rel < 1e-5
