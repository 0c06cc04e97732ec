"""Symbolic capture with example inputs: the graph computes what the model computes on them, or capture says why not."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import CaptureError, InputError
from support.nets import random_input
from support.small_patterns import PATTERNS

X = random_input(4, 8)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x, mask=None, *, scale=2.0):
        mask = torch.ones_like(x) * 3 if mask is None else mask
        return self.fc(x * mask) * scale


class Checked(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        if torch.is_tensor(x):
            x = x / 255.0
        return self.fc(x)


class CheckedInside(Checked):
    def forward(self, x):
        return super().forward(self.fc(x))


class Autocast(nn.Module):
    def __init__(self, enabled=True):
        super().__init__()
        self.fc, self.enabled = nn.Linear(8, 8), enabled

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.enabled):
            return self.fc(x).float()


def inputs_of(result):
    return [node.target for node in result.model.graph.find_nodes(op="placeholder")]


def agrees(result, *args, **kwargs):
    return result.report["capture"], result.verify(*args, **kwargs).max_abs == 0


class TestInputsWithDefaults:
    def test_not_given_they_are_fixed_and_leave_the_graph(self, tmp_path):
        result = transform(Masked(), X, patterns=PATTERNS)
        assert agrees(result, X) == ("symbolic", True)
        assert inputs_of(result) == ["x"]
        assert "mask=None, scale=2.0" in str(result.report)
        assert export_onnx(result, X, tmp_path / "m.onnx").input_names == ("x",)

    def test_given_they_stay(self):
        result = transform(Masked(), X, kwargs={"mask": X + 1}, patterns=PATTERNS)
        assert agrees(result, X, mask=X + 1) == ("symbolic", True)
        assert inputs_of(result) == ["x", "mask"]

    def test_one_after_another_that_is_not_given(self):
        result = transform(Masked(), X, kwargs={"scale": X}, patterns=PATTERNS)
        assert agrees(result, X, scale=X) == ("symbolic", True)
        assert inputs_of(result) == ["x", "scale"]

    def test_given_as_none_they_stay_and_are_not_read(self):
        result = transform(Masked(), (X, None), patterns=PATTERNS)
        assert agrees(result, X, None) == ("symbolic", True)
        assert inputs_of(result) == ["x", "mask"]

    def test_without_example_inputs_they_stay(self):
        assert inputs_of(transform(Masked(), patterns=PATTERNS)) == ["x", "mask", "scale"]

    def test_inputs_that_do_not_fit_are_told(self):
        with pytest.raises(InputError, match="unknown or given twice: other"):
            transform(Masked(), X, kwargs={"other": X}, patterns=PATTERNS)

    def test_tensors_in_containers_are_described(self):
        with pytest.raises(InputError, match=r"\{'a': \[float32\[4, 8\] on cpu\]\}, \(float32\[4, 8\] on cpu,\)"):
            transform(Checked(), ({"a": [X]}, (X,)), patterns=PATTERNS)


class TestIsTensor:
    @pytest.mark.parametrize("args", [X, None])
    def test_inputs_are_tensors(self, args):
        assert agrees(transform(Checked(), args, patterns=PATTERNS), X) == ("symbolic", True)

    def test_other_values_are_what_they_are_on_the_example_inputs(self):
        assert agrees(transform(CheckedInside(), X, patterns=PATTERNS), X) == ("symbolic", True)
        with pytest.raises(CaptureError, match="the class of 'fc' is not known"):
            transform(CheckedInside(), patterns=PATTERNS)


class TestAutocast:
    def test_is_captured_by_torch_export(self):
        assert agrees(transform(Autocast(), X, patterns=PATTERNS), X) == ("export", True)

    def test_is_refused_without_example_inputs(self):
        with pytest.raises(CaptureError, match=r"a symbolic trace cannot hold torch\.autocast"):
            transform(Autocast(), patterns=PATTERNS)

    def test_switched_off_it_changes_nothing(self):
        assert agrees(transform(Autocast(enabled=False), X, patterns=PATTERNS), X) == ("symbolic", True)
