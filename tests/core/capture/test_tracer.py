"""Symbolic capture with example inputs: the graph computes what the model computes on them, or capture says why not."""

import copy
import io

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


def made_of(forward):
    return type("Own", (Masked,), {"forward": forward})()


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

    def test_without_example_inputs_they_are_fixed_to_their_defaults(self):
        model = Masked()
        result = transform(model, patterns=PATTERNS)
        assert inputs_of(result) == ["x"]
        assert "fixed to their defaults: mask=None, scale=2.0" in result.report["notes"][0]
        torch.testing.assert_close(result.model(X), 2 * model.fc(3 * X))
        assert result.verify(X, None, scale=2.0).max_abs == 0

    @pytest.mark.parametrize("default", [True, "sum", (1, 2), torch.full((8,), 2.0)])
    def test_defaults_of_any_type(self, default):
        def forward(m, x, how=default):
            if isinstance(how, torch.Tensor):
                return m.fc(x) + how
            return m.fc(x) * 3 if how in (True, "sum", (1, 2)) else m.fc(x)

        model = made_of(forward)
        result = transform(model, patterns=PATTERNS)
        expected = model.fc(X) + 2 if isinstance(default, torch.Tensor) else model.fc(X) * 3
        assert torch.equal(result.model(X), expected)
        with pytest.raises(InputError, match="example inputs that have it"):
            result.model(X, how=torch.zeros(8))

    def test_nothing_is_left_of_inputs_that_all_have_defaults(self):
        with pytest.raises(CaptureError, match=r"every input has a default.*\n.*defaults of inputs: x=None"):
            transform(made_of(lambda m, x=None: m.fc(x)), patterns=PATTERNS)

    def test_a_trace_that_fails_names_the_defaults(self):
        with pytest.raises(CaptureError, match="traced with the defaults of inputs: mask=None"):
            transform(made_of(lambda m, x, mask=None: x + mask.float()), patterns=PATTERNS)

    def test_inputs_that_do_not_fit_are_told(self):
        with pytest.raises(InputError, match=r"unknown: other\. Leave out other"):
            transform(Masked(), X, kwargs={"other": X}, patterns=PATTERNS)

    def test_tensors_in_containers_are_described(self):
        with pytest.raises(InputError, match=r"\{'a': \[float32\[4, 8\] on cpu\]\}, \(float32\[4, 8\] on cpu,\)"):
            transform(Checked(), ({"a": [X]}, (X,)), patterns=PATTERNS)


class TestFixedInputsThatAreGivenLater:
    """The graph stands for calls without them."""

    @pytest.mark.parametrize("args", [None, X, (X, None)])
    def test_are_refused(self, args, tmp_path):
        result = transform(Masked(), args, patterns=PATTERNS)
        words = r"input 'mask' is a tensor, float32\[4, 8\], but the graph is fixed to mask=None"
        with pytest.raises(InputError, match=words):
            result.model(X, X)
        with pytest.raises(InputError, match=words):
            result.verify(X, mask=X)
        with pytest.raises(InputError, match=words):
            export_onnx(result, (X, X), tmp_path / "m.onnx")
        with pytest.raises(InputError, match=r"input 'scale' is 1\.0, .* fixed to scale=2.0"):
            result.model(X, scale=1.0)

    def test_are_taken_where_they_are_the_same(self, tmp_path):
        result = transform(Masked(), X, patterns=PATTERNS)
        assert torch.equal(result.model(X, None, scale=2.0), result.model(X))
        assert export_onnx(result, (X, None), tmp_path / "m.onnx").input_names == ("x",)

    def test_do_not_take_the_place_of_another(self):
        model = made_of(lambda m, x, mask=None, scale=None: x * scale if mask is None else x - mask)
        result = transform(model, X, kwargs={"scale": X + 1}, patterns=PATTERNS)
        assert torch.equal(result.model(X, None, X + 2), X * (X + 2))
        assert result.verify(X, None, X + 2).max_abs == 0
        with pytest.raises(InputError, match="input 'mask'"):
            result.model(X, X + 2)

    def test_are_refused_by_copies_and_by_what_was_stored(self):
        model = transform(Masked(), patterns=PATTERNS).model
        stored = io.BytesIO()
        torch.save(model, stored)
        stored.seek(0)
        for other in (copy.deepcopy(model), torch.load(stored, weights_only=False)):
            assert torch.equal(other(X, None), model(X))
            with pytest.raises(InputError, match="input 'mask'"):
                other(X, X)


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
        with pytest.raises(CaptureError, match=r"a symbolic trace cannot contain torch\.autocast"):
            transform(Autocast(), patterns=PATTERNS)

    def test_switched_off_it_changes_nothing(self):
        assert agrees(transform(Autocast(enabled=False), X, patterns=PATTERNS), X) == ("symbolic", True)
