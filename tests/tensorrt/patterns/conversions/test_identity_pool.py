"""AdaptiveAvgPool2d that changes nothing is removed."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp

from embedl_deploy import transform
from embedl_deploy.errors import InputError
from embedl_deploy.tensorrt.patterns import RemoveIdentityAdaptiveAvgPoolPattern
from support.agreement import applied, assert_close, check_rewrite, reasons
from support.nets import net, random_input

PATTERNS = [RemoveIdentityAdaptiveAvgPoolPattern()]
X = random_input(2, 3, 7, 5)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AdaptiveAvgPool2d((7, 5)),
        nn.AdaptiveAvgPool2d((None, 5)),
        nn.AdaptiveAvgPool2d((None, None)),
        lambda x: F.adaptive_avg_pool2d(x, (7, 5)),
        lambda x: F.adaptive_avg_pool2d(x, output_size=[7, 5]),
    ],
    ids=["module", "a side as it is", "both sides as they are", "F", "F, keyword"],
)
def test_matches_every_spelling(pool: object) -> None:
    result = check_rewrite(net(lambda m, x: m.pool(x) * 2, pool=pool), (X,), PATTERNS)
    assert len(applied(result)) == 1
    assert list(result.report["unfused"].values()) == ["mul"]


def test_a_square_given_by_one_number() -> None:
    model = net(lambda m, x: m.pool(x) * 2, pool=nn.AdaptiveAvgPool2d(4))
    assert len(applied(check_rewrite(model, (random_input(2, 3, 4, 4),), PATTERNS))) == 1


def test_shapes_that_the_user_propagated_count() -> None:
    graph_module = torch.fx.symbolic_trace(net(lambda m, x: m.pool(x) * 2, pool=nn.AdaptiveAvgPool2d((7, 5))))
    ShapeProp(graph_module).propagate(X)
    result = transform(graph_module, patterns=PATTERNS)
    assert len(applied(result)) == 1
    assert torch.equal(result.model(X), X * 2)


def test_a_pool_whose_input_and_output_are_outputs() -> None:
    model = net(lambda m, x: (y := x * 2, m.pool(y)), pool=nn.AdaptiveAvgPool2d((7, 5)))
    assert len(applied(check_rewrite(model, (X,), PATTERNS))) == 1


def test_a_chain_is_removed_whole() -> None:
    model = net(lambda m, x: m.a(m.a(x)) + m.b(x), a=nn.AdaptiveAvgPool2d((7, 5)), b=nn.AdaptiveAvgPool2d((None, 5)))
    result = check_rewrite(model, (X,), PATTERNS)
    assert len(applied(result)) == 3


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_another_size_is_refused(trace: str) -> None:
    model = net(lambda m, x: m.pool(x * 2), pool=nn.AdaptiveAvgPool2d((7, 5)))
    result = transform(model, X, patterns=PATTERNS, trace=trace)
    assert len(applied(result)) == 1
    with pytest.raises(InputError, match=r"example inputs gave 7×5, for which 'pool' was removed|does not hold"):
        result.model(random_input(2, 3, 7, 9))
    assert_close(result.model(X), X * 2)


def test_a_side_that_stays_as_it_is_may_be_of_any_size() -> None:
    model = net(lambda m, x: m.pool(x * 2), pool=nn.AdaptiveAvgPool2d((None, None)))
    result = transform(model, X, patterns=PATTERNS)
    other = random_input(2, 3, 7, 9)
    assert len(applied(result)) == 1
    assert_close(result.model(other), other * 2)


def test_declines_an_unknown_shape() -> None:
    model = net(lambda m, x: m.pool(x), pool=nn.AdaptiveAvgPool2d((7, 5)))
    result = check_rewrite(model, (X,), PATTERNS, shapes=False)
    assert reasons(result) == [
        "pool: RemoveIdentityAdaptiveAvgPoolPattern declined: the input's shape is unknown: pass example inputs, args="
    ]


def test_declines_another_size() -> None:
    model = net(lambda m, x: m.pool(x), pool=nn.AdaptiveAvgPool2d((7, 1)))
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == ["pool: RemoveIdentityAdaptiveAvgPoolPattern declined: it pools 7×5 to 7×1"]


def test_declines_an_output_that_is_overwritten_while_the_input_is_used() -> None:
    model = net(lambda m, x: (y := x * 2, torch.relu_(m.pool(y)) + y)[1], pool=nn.AdaptiveAvgPool2d((7, 5)))
    result = check_rewrite(model, (X,), PATTERNS)
    assert reasons(result) == [
        "pool: RemoveIdentityAdaptiveAvgPoolPattern declined: "
        "relu_ overwrites its output in place, and the input is used elsewhere"
    ]


def test_an_output_overwritten_when_nothing_else_reads_the_input() -> None:
    model = net(lambda m, x: torch.relu_(m.pool(x * 2)), pool=nn.AdaptiveAvgPool2d((7, 5)))
    assert len(applied(check_rewrite(model, (X,), PATTERNS))) == 1


def test_a_write_into_the_output_does_not_reach_the_callers_tensor() -> None:
    """The pool copied its input; without it ``relu_`` would write into what the caller passed."""
    model = net(lambda m, x: torch.relu_(m.pool(x)), pool=nn.AdaptiveAvgPool2d((7, 5)))
    result = transform(model, X, patterns=PATTERNS)
    x = X.clone()
    result.model(x)
    assert torch.equal(x, X)


def test_a_write_into_the_output_does_not_reach_a_parameter() -> None:
    model = net(
        lambda m, x: torch.relu_(m.pool(m.table)) + x,
        pool=nn.AdaptiveAvgPool2d((7, 5)),
        table=nn.Parameter(torch.empty(2, 3, 7, 5), requires_grad=False),
    )
    result = transform(model, X, patterns=PATTERNS)
    result.model(X)
    assert any(torch.equal(parameter, model.table) for parameter in result.model.parameters())


def test_a_write_into_the_output_does_not_reach_another_name_of_the_input() -> None:
    """The input of the pool has one user, but is a view of a value that has another."""
    model = net(
        lambda m, x: (y := x * 2, torch.relu_(m.pool(y.view(2, 3, 7, 5))) + y)[1], pool=nn.AdaptiveAvgPool2d((7, 5))
    )
    result = transform(model, X, patterns=PATTERNS)
    assert_close(result.model(X), model(X), 1e-6)


def test_nothing_is_logged_for_a_pool_that_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    """What is declined is in the report, once, and not in a log that nobody asked for."""
    with caplog.at_level(logging.WARNING, logger="embedl_deploy"):
        transform(net(lambda m, x: m.pool(x), pool=nn.AdaptiveAvgPool2d(1)), patterns=PATTERNS)
    assert caplog.records == []


def test_a_map_whose_sides_the_user_left_open_is_still_pooled() -> None:
    model = net(lambda m, x: m.pool(x * 2), pool=nn.AdaptiveAvgPool2d((7, 5))).eval()
    shapes = {"x": {2: torch.export.Dim("height", min=7, max=20)}}
    result = transform(model, X, patterns=PATTERNS, dynamic_shapes=shapes)
    assert "dynamic_shapes leaves sizes open" in reasons(result)[0]
    tall = random_input(2, 3, 14, 5)
    assert_close(result.model(tall), tall[:, :, 0::2] + tall[:, :, 1::2], 1e-6)
