"""The graph is compared with the model on the example inputs."""

import itertools
import re

import pytest
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

    def test_a_model_that_gives_something_else_in_its_second_call(self):
        def counting(m, x):
            m.calls += 1
            return x * m.calls

        graph = symbolic_trace(lambda x: x * 1)
        found = find_disagreement(net(counting, calls=0), graph, (X,), {})
        assert "off by 0.5 of the largest value, when it is called again" in str(found)


class TestTransform:
    def test_refuses_what_no_capture_gets_right(self):
        with pytest.raises(
            CaptureError, match=r"does not compute what the model computes .*(\n.*)*torch.export also failed"
        ):
            transform(Sly().eval(), X, patterns=PATTERNS)

    def test_unless_it_is_told_not_to_look(self):
        assert transform(Sly().eval(), X, patterns=PATTERNS, verify_capture=False).report["capture"] == "symbolic"
