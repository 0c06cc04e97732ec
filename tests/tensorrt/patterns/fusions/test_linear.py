"""Fusions of matrix products."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.patterns import QDQPoint
from embedl_deploy.tensorrt import TENSORRT_FUSION_PATTERNS
from embedl_deploy.tensorrt.modules import FusedLinear, FusedLinearReLU
from embedl_deploy.tensorrt.patterns import LinearActPattern, LinearPattern, LinearReLUPattern
from support.agreement import applied, check_rewrite, fused_counts, reasons
from support.nets import net, random_input
from support.spellings import ACTIVATIONS, NOT_ACTIVATIONS, Activation

X = random_input(2, 5, 4)


def test_the_name_of_0_6_is_the_same_class() -> None:
    assert LinearActPattern is LinearReLUPattern


def test_where_quantizers_go() -> None:
    assert LinearReLUPattern.qdq_points == LinearPattern.qdq_points == {QDQPoint.INPUT}


class TestLinearReLU:
    @pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
    def test_matches_every_spelling_of_an_activation(self, activation: Activation) -> None:
        model = net(lambda m, x: m.act(m.fc(x)), fc=nn.Linear(4, 3), act=activation.make())
        result = check_rewrite(model, (X,), [LinearReLUPattern()])
        (fused,) = (module for module in result.model.modules() if isinstance(module, FusedLinearReLU))
        assert type(fused.act) is activation.module_class
        assert {name: getattr(fused.act, name) for name, _ in activation.settings} == dict(activation.settings)

    @pytest.mark.parametrize("other", NOT_ACTIVATIONS, ids=str)
    def test_does_not_take_other_functions(self, other: Activation) -> None:
        model = net(lambda m, x: m.act(m.fc(x)), fc=nn.Linear(4, 5), act=other.make())
        result = check_rewrite(model, (X,), [LinearReLUPattern()])
        assert applied(result) == []
        (line,) = result.report.why_not("fc")
        assert line.startswith("fc: LinearReLUPattern does not match: fc is followed by ")

    def test_a_value_used_outside_is_kept(self) -> None:
        model = net(lambda m, x: (y := m.fc(x), F.relu(y) * y)[1], fc=nn.Linear(4, 3))
        result = check_rewrite(model, (X,), [LinearReLUPattern()])
        assert applied(result) == []
        assert reasons(result) == ["fc: LinearReLUPattern declined: fc feeds 2 users (relu, mul)"]

    def test_a_graph_output_in_the_middle_is_kept(self) -> None:
        model = net(lambda m, x: (y := m.fc(x), F.relu(y)), fc=nn.Linear(4, 3))
        result = check_rewrite(model, (X,), [LinearReLUPattern()])
        assert applied(result) == []
        assert reasons(result) == ["fc: LinearReLUPattern declined: fc is an output of the model"]

    def test_batch_norm_between_does_not_match(self) -> None:
        model = net(lambda m, x: F.relu(m.bn(m.fc(x))), fc=nn.Linear(4, 3), bn=nn.BatchNorm1d(5))
        result = check_rewrite(model, (X,), [LinearReLUPattern()])
        assert applied(result) == []
        (line,) = result.report.why_not("fc")
        assert "fc is followed by bn (BatchNorm1d), expected ReLU" in line


class TestLinear:
    @pytest.mark.parametrize(
        "spelling",
        [
            lambda m, x: F.linear(x, m.weight, m.bias),
            lambda m, x: F.linear(input=x, weight=m.weight, bias=m.bias),
            lambda m, x: F.linear(x, m.weight),
        ],
        ids=["F", "keywords", "no bias"],
    )
    def test_matches_functional_spellings_and_shares_their_parameters(self, spelling: object) -> None:
        model = net(spelling, weight=nn.Parameter(torch.empty(3, 4)), bias=nn.Parameter(torch.empty(3)))
        used = net(spelling, weight=model.weight, bias=model.bias)
        result = check_rewrite(used, (X,), [LinearPattern()], train=False)
        (fused,) = (module for module in result.model.modules() if isinstance(module, FusedLinear))
        assert isinstance(fused.linear.weight, nn.Parameter)
        torch.testing.assert_close(fused.linear.weight, model.weight, rtol=0, atol=0)

    def test_matches_a_module_that_is_a_graph_output(self) -> None:
        model = net(lambda m, x: (m.a(x), m.b(x)), a=nn.Linear(4, 3), b=nn.Linear(4, 3, bias=False))
        result = check_rewrite(model, (X,), [LinearPattern()])
        assert applied(result) == [("LinearPattern", "a"), ("LinearPattern", "b")]

    def test_a_weight_computed_on_the_way_does_not_match(self) -> None:
        model = net(lambda m, x: F.linear(x, m.weight * 2), weight=nn.Parameter(torch.empty(3, 4)))
        result = check_rewrite(model, (X,), [LinearPattern()])
        assert applied(result) == []
        assert result.report.why_not("linear") == ["linear: no pattern has an element for it"]

    def test_bilinear_does_not_match(self) -> None:
        model = net(lambda m, x: m.both(x, x), both=nn.Bilinear(4, 4, 3))
        assert applied(check_rewrite(model, (X,), [LinearPattern()])) == []

    def test_tied_weights_stay_tied(self) -> None:
        weight = nn.Parameter(torch.empty(4, 4))
        model = net(lambda m, x: m.b(m.a(x)), a=nn.Linear(4, 4), b=nn.Linear(4, 4))
        model.a.weight = model.b.weight = weight
        with torch.no_grad():
            weight.copy_(random_input(4, 4))
        result = check_rewrite(model, (X,), [LinearPattern()])
        assert result.model.a.linear.weight is result.model.b.linear.weight

    def test_a_layer_called_twice_stays_one(self) -> None:
        model = net(lambda m, x: m.a(m.a(x).tanh()), a=nn.Linear(4, 4))
        result = check_rewrite(model, (X,), [LinearPattern()])
        assert len(applied(result)) == 2 and fused_counts(result.model) == {"FusedLinear": 1}

    def test_hooks_go_on_running(self) -> None:
        model = net(lambda m, x: m.a(x), a=nn.Linear(4, 4))
        model.a.register_forward_hook(lambda module, args, output: output + 1)
        check_rewrite(model, (X,), [LinearPattern()])

    def test_the_activation_goes_with_the_product_before_it(self) -> None:
        model = net(lambda m, x: m.b(F.gelu(m.a(x))), a=nn.Linear(4, 8), b=nn.Linear(8, 4))
        result = check_rewrite(model, (X,), TENSORRT_FUSION_PATTERNS)
        assert applied(result) == [("LinearReLUPattern", "a", "gelu"), ("LinearPattern", "b")]
