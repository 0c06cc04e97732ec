"""Fusions of element-wise operators."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.patterns import QDQPoint
from embedl_deploy.tensorrt import TENSORRT_FUSION_PATTERNS
from embedl_deploy.tensorrt.modules import FusedActAdd
from embedl_deploy.tensorrt.patterns import ActAddPattern
from support.agreement import applied, check_rewrite, fused_counts, reasons
from support.nets import net, random_input
from support.spellings import ACTIVATIONS, NOT_ACTIVATIONS, NOT_SUMS, SUMS, Activation, Sum

X, Y = random_input(2, 3, 4), random_input(2, 3, 4, seed=2)


def test_where_quantizers_go() -> None:
    assert ActAddPattern.qdq_points == {QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT}


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_matches_every_spelling_of_an_activation(activation: Activation) -> None:
    model = net(lambda m, x, y: m.act(x * 1) + y, act=activation.make())
    result = check_rewrite(model, (X, Y), [ActAddPattern()])
    (fused,) = (module for module in result.model.modules() if isinstance(module, FusedActAdd))
    assert type(fused.act) is activation.module_class
    assert fused.inplace == dict(activation.settings).get("inplace", False)


@pytest.mark.parametrize("commuted", [False, True], ids=["a, b", "b, a"])
@pytest.mark.parametrize("sum_", SUMS, ids=str)
def test_matches_every_spelling_and_order_of_a_sum(sum_: Sum, commuted: bool) -> None:
    model = net(
        lambda m, x, y: sum_.compute(y.clone(), m.act(x)) if commuted else sum_.compute(m.act(x), y), act=nn.SiLU()
    )
    result = check_rewrite(model, (X, Y), [ActAddPattern()])
    assert fused_counts(result.model) == {"FusedActAdd": 1}


@pytest.mark.parametrize("other", NOT_ACTIVATIONS, ids=str)
def test_does_not_take_other_functions(other: Activation) -> None:
    result = check_rewrite(net(lambda m, x, y: m.act(x) + y, act=other.make()), (X, Y), [ActAddPattern()])
    assert applied(result) == []
    (line,) = result.report.why_not("add")
    assert line.startswith("add: ActAddPattern does not match: add comes after ")


@pytest.mark.parametrize("other", NOT_SUMS, ids=str)
def test_does_not_take_other_operations(other: Sum) -> None:
    result = check_rewrite(net(lambda m, x, y: other.compute(F.relu(x), y)), (X, Y), [ActAddPattern()])
    assert applied(result) == []


def test_of_two_activations_the_first_operand_is_fused() -> None:
    result = check_rewrite(net(lambda m, x, y: F.relu(x) + F.silu(y)), (X, Y), [ActAddPattern()])
    assert applied(result) == [("ActAddPattern", "relu", "add")]


def test_an_activation_used_twice_is_kept() -> None:
    result = check_rewrite(net(lambda m, x, y: (z := F.relu(x), (z + y) * z)[1]), (X, Y), [ActAddPattern()])
    assert applied(result) == []
    assert reasons(result) == ["relu: ActAddPattern declined: relu feeds 2 users (add, mul)"]


def test_a_graph_output_in_the_middle_is_kept() -> None:
    result = check_rewrite(net(lambda m, x, y: (z := F.relu(x), z + y)), (X, Y), [ActAddPattern()])
    assert applied(result) == []
    assert reasons(result) == ["relu: ActAddPattern declined: relu is an output of the model"]


@pytest.mark.parametrize("function", [lambda z: (y := F.relu(z)) + y, lambda z: torch.relu_(z) + z])
def test_an_activation_added_to_itself_is_declined(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """In place, both operands are the overwritten tensor."""
    result = check_rewrite(net(lambda m, x: function(x * 1)), (X,), [ActAddPattern()])
    assert applied(result) == []
    (reason,) = reasons(result)
    assert reason.endswith(" is also the match's own other input")


def test_an_activation_in_place_of_a_value_that_is_read_later_is_declined() -> None:
    model = net(lambda m, x, y: (z := x * 1, s := torch.relu_(z) + y, s * z)[2])
    result = check_rewrite(model, (X, Y), [ActAddPattern()], train=False)
    assert applied(result) == []
    assert reasons(result) == ["relu_: ActAddPattern declined: relu_ feeds 2 users (add, mul_1)"]


def test_a_residual_of_another_type_leaves_the_sum_in_place_as_it_is() -> None:
    def forward(m: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = F.relu(x)
        z += y
        return z

    check_rewrite(net(forward), (X, Y.double()), [ActAddPattern()])


def test_an_activation_stays_with_the_product_before_it() -> None:
    model = net(lambda m, x, y: F.relu(m.fc(x)) + y, fc=nn.Linear(4, 4))
    result = check_rewrite(model, (X, Y), TENSORRT_FUSION_PATTERNS)
    assert applied(result) == [("LinearReLUPattern", "fc", "relu")]
    assert [m.reason for m in result.matches["add"].values()] == ["overlaps LinearReLUPattern at relu"]


def test_a_sum_of_which_the_other_operand_is_the_sum_of_another_match() -> None:
    """``sigmoid(linear(x) + log(r / (1 - r)))`` and its kin: an ``add`` that one match makes and another reads."""
    model = net(lambda m, x, y: (s := F.relu(x) + y, F.silu(y) + s)[1])
    result = check_rewrite(model, (X, Y), [ActAddPattern()])
    assert len(applied(result)) == 2
