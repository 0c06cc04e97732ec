"""Forks: every layout of their branches is tried, and operands may come in any order."""

import operator

import pytest
import torch
from torch import nn

from embedl_deploy import get_transformation_plan, transform
from embedl_deploy.modules import FusedModule, symbolic_trace
from embedl_deploy.patterns import Fork, Pattern, Wildcard, match_tree
from support.nets import net, random_input

X = random_input(2, 4, 6, 6)


class ReluSum(Pattern):
    """A chain of activations plus anything; how long the chain may be is said by ``longest``."""

    tree = (Fork(operator.add, (Wildcard(nn.ReLU), nn.Sigmoid), ()),)
    longest = 0
    graft = nn.Identity

    def check(self, match):
        count = len(match.tree_match.branches(0)[0].get_node(0).nodes)
        return None if count <= self.longest else f"{count} activations, at most {self.longest}"


@pytest.mark.parametrize("longest", [0, 1, 2])
def test_check_sees_shorter_layouts_of_a_branch(longest):
    model = net(lambda m, x, y: x + torch.sigmoid(torch.relu(torch.relu(y))))
    pattern = ReluSum()
    pattern.longest = longest
    (match,) = match_tree(symbolic_trace(model), pattern=pattern)
    assert len(match.tree_match.branches(0)[0].get_node(0).nodes) == longest


def test_the_reason_is_that_of_the_longest_layout():
    pattern = ReluSum()
    pattern.longest = -1
    plan = get_transformation_plan(net(lambda m, x, y: x + torch.sigmoid(torch.relu(y))), patterns=[pattern])
    assert [declined.reason for declined in plan.declined] == ["1 activations, at most -1"]


def test_branches_that_want_one_node_share_it_out():
    """The first branch takes less, so that the second gets what it must have."""

    class Both(Pattern):
        tree = (Fork(operator.mul, (Wildcard(nn.ReLU), nn.Sigmoid), (nn.ReLU,)),)

    model = net(lambda m, x: (y := torch.relu(x), torch.sigmoid(y) * y)[1])
    (match,) = match_tree(symbolic_trace(model), pattern=Both())
    assert match.tree_match.serialize() == [{"join": "mul", "branches": [[[], "sigmoid"], ["relu"]]}]


class Concatenated(FusedModule):
    """The parts behind one another, each where it was."""

    def __init__(self, conv, pool, order):
        super().__init__()
        self.conv, self.pool, self.order = conv, pool, order

    def forward(self, x, y, *rest):
        parts = [self.conv(x), self.pool(y), *rest]
        return torch.cat([parts[self.order.index(position)] for position in range(len(parts))], 1)


class CatPattern(Pattern):
    tree = (Fork(torch.cat, (nn.Conv2d,), (nn.MaxPool2d,), (), (), any_order=True),)
    graft = Concatenated


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: torch.cat([m.conv(x), m.pool(x), x, -x], 1),
        lambda m, x: torch.cat([-x, m.pool(x), x, m.conv(x)], 1),
        lambda m, x: torch.concat(dim=1, tensors=(x, m.conv(x), -x, m.pool(x))),
    ],
)
def test_a_concatenation_in_any_order_is_one_pattern(function, trace):
    model = net(function, conv=nn.Conv2d(4, 4, 1), pool=nn.MaxPool2d(3, 1, 1))
    result = transform(model, X, patterns=[CatPattern()], trace=trace, strict=True)
    assert result.report["applied_count"] == 1
    assert result.verify(X).max_rel < 1e-6


def test_one_module_in_two_orders_is_two_grafts():
    model = net(
        lambda m, x: torch.cat([m.conv(x), m.pool(x), x, x], 1) + torch.cat([x, m.pool(x), m.conv(x), -x], 1),
        conv=nn.Conv2d(4, 4, 1),
        pool=nn.MaxPool2d(3, 1, 1),
    )
    result = transform(model, X, patterns=[CatPattern()], strict=True)
    assert result.report["applied_count"] == 2
    assert result.verify(X).max_rel < 1e-6


def test_without_any_order_the_order_counts():
    class Straight(Pattern):
        tree = (Fork(torch.cat, (nn.Conv2d,), ()),)

    both = net(lambda m, x: (torch.cat([m.conv(x), x], 1), torch.cat([x, m.conv(x)], 1)), conv=nn.Conv2d(4, 4, 1))
    (match,) = match_tree(symbolic_trace(both), pattern=Straight())
    assert match.node_name == "cat"
