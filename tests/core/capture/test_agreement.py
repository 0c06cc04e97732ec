"""The graph is compared with the model on the example inputs."""

import itertools
import random
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture.agreement import find_disagreement
from embedl_deploy.errors import CaptureError, InputError
from embedl_deploy.modules import symbolic_trace
from support.nets import net, random_input
from support.small_patterns import PATTERNS

X = random_input(3, 8)


class Sly(nn.Module):
    """Computes something else each time that its code runs: something that no tracer can see."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.a(x) + next(COUNTER)


COUNTER = itertools.count()


class TestFindDisagreement:
    def test_none(self):
        model = nn.Sequential(nn.Linear(8, 8), nn.Dropout()).train()
        assert find_disagreement(model, symbolic_trace(model), (X,), {}) is None

    def test_the_first_module_is_named(self):
        model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh()), nn.Linear(8, 8)).eval()
        traced = symbolic_trace(model)
        traced.get_submodule("1")._modules["0"] = nn.Linear(8, 8)
        found = find_disagreement(model, traced, (X,), {})
        assert found.module == "1.0"
        assert "its output is off by" in str(found)

    def test_a_graph_that_fails(self):
        model = nn.Linear(8, 8)
        found = find_disagreement(model, symbolic_trace(nn.Linear(4, 4)), (X,), {})
        assert "the graph fails where the model does not" in str(found)

    @pytest.mark.parametrize(
        ("other", "what"),
        [
            (lambda x: (x, x), "it returns 2 values, the model 1"),
            (lambda x: x.double(), r"it returns float64\[3, 8\] on cpu, the model float32\[3, 8\] on cpu"),
            (lambda x: x[:1], r"it returns float32\[1, 8\]"),
        ],
    )
    def test_outputs_of_another_kind(self, other, what):
        found = find_disagreement(nn.Identity(), symbolic_trace(other), (X,), {})
        assert re.search(what, str(found))

    def test_numbers_among_the_outputs(self):
        model = net(lambda m, x: (x, 3))
        assert find_disagreement(model, symbolic_trace(model), (X,), {}) is None
        found = find_disagreement(net(lambda m, x: (x, 4)), symbolic_trace(model), (X,), {})
        assert "it returns int 3, the model int 4" in str(found)

    def test_a_model_that_fails_on_its_own_inputs(self):
        model = net(lambda m, x: x.reshape(5, 5))
        with pytest.raises(InputError, match="The model itself fails on the example inputs"):
            find_disagreement(model, symbolic_trace(nn.Identity()), (X,), {})

    def test_tensors_without_values_are_not_compared(self):
        model = nn.Linear(8, 8, device="meta")
        assert find_disagreement(model, symbolic_trace(model), (X.to("meta"),), {}) is None


def _seeded(m, x):
    return m.a(x) + torch.rand(8, generator=torch.Generator().manual_seed(3))


def _seeds_torch(m, x):
    torch.manual_seed(3)
    return F.dropout(m.a(x), training=True)


def _seeds_its_own(m, x):
    m.own.manual_seed(3)
    return m.a(x) + torch.rand(8, generator=m.own)


def _seeds_python(m, x):
    random.seed(3)
    return m.a(x) * random.random()


class TestRandomNumbers:
    """A graph agrees in every call, from the same random state, or is refused."""

    @pytest.mark.parametrize("trace", ["auto", "export"])
    @pytest.mark.parametrize(
        "forward",
        [
            *(_seeded, _seeds_torch, _seeds_its_own),
            lambda m, x: m.a(x) * random.random(),
            lambda m, x: m.a(x) * np.random.rand(),
        ],
    )
    def test_a_graph_that_draws_others_is_refused(self, forward, trace):
        model = net(forward, a=nn.Linear(8, 8), own=torch.Generator())
        with pytest.raises(CaptureError, match="does not compute what the model computes"):
            transform(model, X, patterns=PATTERNS, trace=trace)

    @pytest.mark.parametrize("trace", ["auto", "export"])
    @pytest.mark.parametrize(
        "forward",
        [
            lambda m, x: m.a(x) + torch.randn_like(x),
            lambda m, x: F.dropout(m.a(x), training=True),
            lambda m, x: F.rrelu(m.a(x), training=True),
            lambda m, x: m.a(x) + torch.bernoulli(x.sigmoid()),
        ],
    )
    def test_the_same_numbers_are_drawn_from_the_same_state(self, forward, trace):
        model = net(forward, a=nn.Linear(8, 8))
        captured = transform(model, X, patterns=PATTERNS, trace=trace).model
        torch.manual_seed(0)
        wanted = [model(X), model(X)]
        torch.manual_seed(0)
        assert [torch.equal(captured(X), output) for output in wanted] == [True, True]

    def test_numbers_that_do_not_depend_on_the_call_are_constants(self):
        model = net(_seeds_python, a=nn.Linear(8, 8))
        captured = transform(model, X, patterns=PATTERNS).model
        # random.Random(3).random() as Python's documentation of the Mersenne Twister promises it in every version.
        torch.testing.assert_close(captured(X), model.a(X) * 0.23796462709189137)

    def test_the_second_call_is_named(self):
        model = net(_seeded, a=nn.Linear(8, 8))
        with pytest.raises(CaptureError, match="when it is called again"):
            transform(model, X, patterns=PATTERNS, trace="export")


class TestTransform:
    def test_refuses_what_no_capture_gets_right(self):
        with pytest.raises(
            CaptureError, match=r"does not compute what the model computes .*(\n.*)*torch.export was tried"
        ):
            transform(Sly().eval(), X, patterns=PATTERNS)

    def test_unless_it_is_told_not_to_look(self):
        assert transform(Sly().eval(), X, patterns=PATTERNS, verify_capture=False).report["capture"] == "symbolic"
