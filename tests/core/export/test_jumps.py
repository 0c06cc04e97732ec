"""Operators at which rounding alone changes what a model gives."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.errors import ExportError
from embedl_deploy.export.jumps import first_jump
from support.nets import net, random_input

X = random_input(16, 4)


def jump(forward, x=X):
    model = net(lambda m, x: forward(m.fc(x)), fc=nn.Linear(4, 4))
    return first_jump(model, ((x,), {}), model, ((x,), {}), digits=10)


@pytest.mark.parametrize(
    ("forward", "name"),
    [
        (lambda y: torch.fmod(y * 1000, 1.0), "fmod"),
        (lambda y: torch.floor(y * 1000) / 1000 - y, None),  # it jumps by a thousandth of the whole
        (lambda y: (torch.round(y * 1e-3 + 0.5)).topk(2, 0).values, "round"),
        (lambda y: (y * 1000).frac().argmax(0), "frac"),
        (lambda y: torch.where(y * 0 + torch.linspace(0.9999, 1.0001, 4) > 1, 1.0, -1.0), "gt"),
        (lambda y: (y * 1000).long(), "_to_copy"),
        (lambda y: torch.relu(y).exp(), None),
    ],
)
def test_the_first_is_found(forward, name):
    found = jump(forward)
    assert (found is None) if name is None else (name in found.place and found.share > 0)


def test_ties_of_a_choice_are_none():
    assert jump(lambda y: (y * 0).topk(2).indices) is None


def test_a_file_behind_one_is_refused_with_its_place(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Remainder()).eval()
    said = (
        r"fmod computes in module '1' \(.*\) is discontinuous, and .* of its values are others, of operands that agree"
    )
    with pytest.raises(ExportError, match=said) as caught:
        export_onnx(model, X, tmp_path / "m.onnx", dtype=torch.float16)
    assert "does not fit" not in str(caught.value) and "65504" not in str(caught.value)


def test_choices_among_equals_in_float16_are_made_in_onnx_order(tmp_path):
    model = net(lambda m, x: torch.topk(m.fc(x).round(), 3).indices, fc=nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model.fc.weight.copy_(torch.eye(4))
    written = export_onnx(model, X.round(), tmp_path / "m.onnx", dtype=torch.float16)
    assert written.difference.max_abs == 0


class Remainder(nn.Module):
    def forward(self, x):
        return torch.fmod(x * 1000, 1.0)
