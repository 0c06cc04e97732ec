"""How far two outputs are apart."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from embedl_deploy.errors import InputError
from embedl_deploy.verify import (
    Difference,
    compare_models,
    difference,
    output_tensors,
    run_unchanged,
    signal_to_noise,
)
from support.nets import net, random_input

nan, inf = float("nan"), float("inf")


def t(*values, dtype=None):
    return torch.tensor(values, dtype=dtype)


class TestDifference:
    @pytest.mark.parametrize(
        ("a", "b", "max_abs", "max_rel"),
        [
            (t(1.0, -4.0), t(1.0, -4.0), 0, 0),
            (t(1.0, -4.0), t(1.5, -4.0), 0.5, 0.125),
            (t(0.0, 0.0), t(0.0, 2.0), 2, 2),
            (t(nan, inf, -inf), t(nan, inf, -inf), 0, 0),
            (t(nan, 1.0), t(1.0, 1.0), inf, inf),
            (t(1.0), t(nan), inf, inf),
            (t(inf), t(-inf), inf, inf),
            (t(2.0, inf), t(2.0, 5.0), inf, inf),
            (t(), t(), 0, 0),
            (t(3, 200), t(3, 100), 100, 0.5),
            (t(True, False), t(True, True), 1, 1),
            (t(3 + 4j), t(3 + 1j), 3, 0.6),
            (t(2**24 + 1, dtype=torch.int64), t(2**24, dtype=torch.int64), 1, 1 / (2**24 + 1)),
        ],
    )
    def test_of_tensors(self, a, b, max_abs, max_rel):
        found = difference(a, b)
        assert found.max_abs == pytest.approx(max_abs)
        assert found.max_rel == pytest.approx(max_rel)

    def test_each_output_is_measured_by_its_own_size(self):
        a = {"x": t(10.0), "y": [t(1.0), (t(2.0), None, "text")]}
        b = {"x": t(11.0), "y": [t(1.5), (t(2.0), None, "text")]}
        assert difference(a, b) == (1.0, 0.5)

    def test_outputs_without_tensors_are_refused(self):
        @dataclass
        class Boxes:
            scores: torch.Tensor

        with pytest.raises(InputError, match="a Boxes holds no tensors that can be found"):
            difference(Boxes(t(1.0)), Boxes(t(2.0)))

    def test_is_measured_in_double_precision(self):
        a, b = t(1.0, dtype=torch.float64), t(1.0 + 1e-12, dtype=torch.float64)
        assert 0.9e-12 < difference(a, b).max_abs < 1.1e-12
        assert difference(t(3, dtype=torch.uint8), t(5, dtype=torch.uint8)).max_abs == 2

    def test_takes_tensors_with_gradients(self):
        assert difference(t(1.0).requires_grad_(), t(2.0).requires_grad_()).max_abs == 1

    @pytest.mark.parametrize(
        ("a", "b"), [(t(1.0), t(1.0, 2.0)), ([t(1.0)], [t(1.0), t(1.0)]), (t(1.0), None), (t(1.0), t(1.0)[None])]
    )
    def test_of_other_shapes_is_an_error(self, a, b):
        with pytest.raises(InputError, match="cannot be compared"):
            difference(a, b)

    def test_prints(self):
        assert str(Difference(0.125, 0.5)) == "max |Δ| = 0.125 (0.5 of the largest output)"


@pytest.mark.parametrize(
    ("reference", "other", "expected"),
    [
        ((0.0, inf, 10.0), (0.0, inf, 9.0), 20.0),
        ((-inf, 1.0), (-inf, 1.0), inf),
        ((-inf, 1.0), (0.0, 1.0), -inf),
        ((1.0, 1.0), (1.0, -inf), -inf),
        ((nan, 1.0), (nan, 1.0), inf),
        ((nan, 10.0), (nan, 9.0), 20.0),
        ((nan, 1.0), (1.0, 1.0), -inf),
        ((1.0, 1.0), (1.0, nan), -inf),
    ],
    ids=[
        "noise beside infinity",
        "mask",
        "lost mask",
        "infinity came",
        "NaN",
        "noise beside NaN",
        "lost NaN",
        "NaN came",
    ],
)
def test_signal_to_noise_of_what_is_not_finite(reference, other, expected):
    assert signal_to_noise(t(*reference), t(*other)) == pytest.approx(expected)


def test_output_tensors_in_order():
    a, b, c = t(1.0), t(2.0), t(3.0)
    found = output_tensors(OrderedDict(z=a, y=[b, {"k": (c,)}, None, 3]))
    assert [float(x) for x in found] == [1.0, 2.0, 3.0]


class TestRunUnchanged:
    @pytest.fixture
    def model(self):
        return net(
            lambda self, x: self.drop(self.bn(x.mul_(2))) + torch.rand_like(x), bn=nn.BatchNorm2d(2), drop=nn.Dropout()
        ).train()

    def test_leaves_no_trace(self, model):
        x = random_input(2, 2, 3, 3)
        kept, rng = x.clone(), torch.get_rng_state()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        buffers = dict(model.named_buffers())
        first, second = (run_unchanged(model, (x,), {}) for _ in range(2))
        assert torch.equal(first, second)
        assert not first.requires_grad
        assert torch.equal(x, kept)
        assert torch.equal(torch.get_rng_state(), rng)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert all(tensor is buffers[name] for name, tensor in model.named_buffers())

    def test_leaves_no_trace_in_a_module_with_two_names(self):
        """``torch.func.functional_call`` leaves a copy there."""
        norm = nn.BatchNorm2d(2)
        other = nn.BatchNorm2d(2)
        other._buffers["running_mean"] = norm.running_mean
        model = nn.Sequential(norm, norm, other).train()
        before = [(buffer, buffer.clone()) for buffer in (*norm.buffers(), *other.buffers())]
        run_unchanged(model, (random_input(2, 2, 3, 3),), {})
        after = [*norm.buffers(), *other.buffers()]
        assert all(now is old and torch.equal(now, kept) for now, (old, kept) in zip(after, before, strict=True))

    def test_leaves_no_trace_of_a_failure(self, model):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        rng = torch.get_rng_state()
        with pytest.raises(ValueError, match="expected 4D"):
            run_unchanged(model, (random_input(2, 2, 3),), {})
        assert torch.equal(torch.get_rng_state(), rng)
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    def test_passes_keywords_and_what_is_no_tensor(self):
        class Net(nn.Module):
            def forward(self, x, scale, *, shift):
                return x * scale + shift["by"]

        assert float(run_unchanged(Net(), (t(2.0), 3), {"shift": {"by": t(1.0)}})) == 7

    def test_attributes_are_put_back(self):
        class Counting(nn.Module):
            def __init__(self):
                super().__init__()
                self.calls, self.last, self.seen = 0, None, []
                self.fc = nn.utils.spectral_norm(nn.Linear(3, 3))

            def forward(self, x):
                self.calls += 1
                self.last = self.new = self.fc(x)
                self.seen.append(x)
                return self.last * self.calls

        model = Counting()
        weight = model.fc.weight
        first, second = (run_unchanged(model, (random_input(2, 3),), {}) for _ in range(2))
        assert torch.equal(first, second)
        assert (model.calls, model.last, model.seen, hasattr(model, "new")) == (0, None, [], False)
        assert model.fc.weight is weight


def test_models_are_compared_from_the_same_random_state():
    model = nn.Dropout().train()
    assert compare_models(model, nn.Dropout().train(), (torch.ones(100),)) == (0, 0)
    assert compare_models(model, nn.Dropout(0.2).train(), (torch.ones(100),)).max_abs > 0


def test_models_are_given_inputs_of_their_own():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.add_(1)

    assert compare_models(InPlace(), InPlace(), (torch.zeros(3),)) == (0, 0)
    assert compare_models(InPlace(), nn.Identity(), (torch.zeros(3),)).max_abs == 1
