"""The matcher: what fits, what does not, and why."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from embedl_deploy import get_transformation_plan, transform
from embedl_deploy.errors import PatternError
from embedl_deploy.modules import symbolic_trace
from embedl_deploy.patterns import Fork, Pattern, Wildcard, get_module, match_tree
from support.small_patterns import ConvAddActPattern, ConvBNActPattern, ConvPattern, FusedChain, QConv, QConvAdd


def trace(forward, **modules):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, module in modules.items():
                setattr(self, name, module)

    Net.forward = forward
    return symbolic_trace(Net().eval())


def names(pattern, graph_module):
    return [match.tree_match.serialize() for match in match_tree(graph_module, pattern=pattern)]


def conv(channels=4):
    return nn.Conv2d(channels, channels, 1)


class TestElements:
    def test_class_matches_the_module(self):
        assert names(ConvPattern(), trace(lambda self, x: self.c(x), c=conv())) == [["c", []]]

    def test_tuple_is_any_of(self):
        class P(Pattern):
            tree = ((nn.ReLU, nn.Tanh),)

        graph = trace(lambda self, x: self.t(self.r(x)), r=nn.ReLU(), t=nn.Tanh())
        assert names(P(), graph) == [["r"], ["t"]]

    @pytest.mark.parametrize(
        "forward",
        [
            lambda self, x: F.relu(self.c(x)),
            lambda self, x: F.relu(self.c(x), True),
            lambda self, x: F.relu(input=self.c(x), inplace=True),
            lambda self, x: torch.relu(self.c(x)),
            lambda self, x: torch.relu_(self.c(x)),
            lambda self, x: self.c(x).relu(),
            lambda self, x: self.c(x).relu_(),
        ],
    )
    def test_functional_forms_are_what_they_are(self, forward):
        graph = trace(forward, c=conv())
        (match,) = match_tree(graph, pattern=ConvBNActPattern())
        assert isinstance(get_module(match.tree_match.get_node(2)), nn.ReLU)

    @pytest.mark.parametrize(
        "add",
        [
            lambda a, b: a + b,
            lambda a, b: b + a,
            lambda a, b: torch.add(a, b),
            lambda a, b: torch.add(b, other=a),
            lambda a, b: a.add(b),
            lambda a, b: a.add_(b),
            operator.iadd,
        ],
    )
    def test_sums_in_every_spelling_and_order(self, add):
        graph = trace(lambda self, x: F.relu(add(self.b(self.c(x)), x)), c=conv(), b=nn.BatchNorm2d(4))
        (match,) = match_tree(graph, pattern=ConvAddActPattern())
        assert [node.name for node in match.tree_match.inputs()] == ["x", "x"]
        branch, free = match.tree_match.branches(0)
        assert [node.name for node in branch.nodes] == ["c", "b"]
        assert free.nodes == []

    def test_scaled_sum_is_no_sum(self):
        graph = trace(lambda self, x: F.relu(torch.add(self.b(self.c(x)), x, alpha=2)), c=conv(), b=nn.BatchNorm2d(4))
        assert names(ConvAddActPattern(), graph) == []

    def test_sum_with_a_number_is_no_residual(self):
        graph = trace(lambda self, x: F.relu(self.b(self.c(x)) + 1), c=conv(), b=nn.BatchNorm2d(4))
        assert names(ConvAddActPattern(), graph) == []

    def test_function_and_method_elements(self):
        class ByFunction(Pattern):
            tree = (nn.Conv2d, torch.exp)

        class ByMethod(Pattern):
            tree = (nn.Conv2d, "exp")

        for forward in (lambda self, x: torch.exp(self.c(x)), lambda self, x: self.c(x).exp_()):
            graph = trace(forward, c=conv())
            assert names(ByFunction(), graph) == names(ByMethod(), graph) == [["c", graph_names(graph)[2]]]

    def test_predicate(self):
        def is_wide(node: fx.Node) -> bool:
            module = get_module(node)
            return isinstance(module, nn.Conv2d) and module.out_channels >= 8

        class P(Pattern):
            tree = (is_wide,)

        graph = trace(lambda self, x: self.w(self.c(x)), c=conv(), w=nn.Conv2d(4, 8, 1))
        assert names(P(), graph) == [["w"]]

    def test_foreign_function_is_matched_by_identity(self):
        class P(Pattern):
            tree = (two_arguments,)

        graph = trace(lambda self, x: two_arguments(x, x))
        assert names(P(), graph) == [["two_arguments"]]


def two_arguments(x, y):
    return x * y


fx.wrap("two_arguments")


def graph_names(graph_module):
    return [node.name for node in graph_module.graph.nodes]


class TestSubclasses:
    def test_subclass_that_changes_nothing_matches(self):
        class Renamed(nn.Conv2d):
            def extra_repr(self):
                return "renamed"

        assert names(ConvPattern(), trace(lambda self, x: self.c(x), c=Renamed(4, 4, 1))) == [["c", []]]

    def test_subclass_with_its_own_forward_is_traced_through_and_not_lost(self):
        class Padding(nn.Conv2d):
            def forward(self, x):
                return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)

        net = nn.Sequential(Padding(4, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU()).eval()
        result = transform(net, patterns=[ConvBNActPattern()])
        (fused,) = [m for m in result.model.modules() if isinstance(m, QConv)]
        assert type(fused.conv) is nn.Conv2d
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_forward_patched_on_the_instance_is_not_mistaken(self):
        patched = conv()
        patched.forward = lambda x: x * 2
        result = transform(nn.Sequential(patched), patterns=[ConvPattern()])
        assert result.report["applied_count"] == 0
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_parametrized_module_is_still_itself(self):
        net = nn.Sequential(nn.utils.parametrizations.weight_norm(conv()), nn.ReLU()).eval()
        result = transform(net, patterns=[ConvBNActPattern()])
        assert result.report["applied_count"] == 1
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_weight_computed_on_the_way_is_no_module(self):
        class Standardized(nn.Conv2d):
            def forward(self, x):
                return F.conv2d(x, self.weight - self.weight.mean(), self.bias)

        result = transform(nn.Sequential(Standardized(4, 4, 1)), patterns=[ConvPattern()])
        assert result.report["applied_count"] == 0
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0


class TestWildcards:
    class Many(Pattern):
        tree = (nn.Conv2d, Wildcard((nn.ReLU, nn.Dropout)), nn.Tanh)
        graft = staticmethod(lambda conv, middle, tanh: FusedChain(conv, *middle, tanh))

    @pytest.mark.parametrize("middle", [[], ["r"], ["r", "d"], ["d", "d2", "r"]])
    def test_takes_zero_or_more(self, middle):
        def forward(self, x):
            x = self.c(x)
            for name in middle:
                x = getattr(self, name)(x)
            return self.t(x)

        graph = trace(forward, c=conv(), r=nn.ReLU(), d=nn.Dropout(), d2=nn.Dropout(), t=nn.Tanh())
        assert names(self.Many(), graph) == [["c", middle, "t"]]

    def test_optional_takes_one_only(self):
        net = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU()).eval()
        result = transform(net, patterns=[ConvBNActPattern(), ConvPattern()])
        assert [m["nodes"] for m in result.report["applied"]] == [["_0", "_1"]]
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_trailing_wildcard_takes_the_longest(self):
        graph = trace(lambda self, x: self.b(self.c(x)), c=conv(), b=nn.BatchNorm2d(4))
        assert names(ConvPattern(), graph) == [["c", ["b"]]]

    def test_gives_back_what_the_rest_needs(self):
        class P(Pattern):
            tree = (nn.Conv2d, Wildcard(nn.ReLU), nn.ReLU)

        graph = trace(lambda self, x: self.r2(self.r(self.c(x))), c=conv(), r=nn.ReLU(), r2=nn.ReLU())
        assert ["c", ["r"], "r2"] in names(P(), graph)

    def test_leading_wildcard_may_be_empty(self):
        class P(Pattern):
            tree = (Wildcard(nn.Dropout), nn.Conv2d)

        assert names(P(), trace(lambda self, x: self.c(x), c=conv())) == [[[], "c"]]
        graph = trace(lambda self, x: self.c(self.d(x)), c=conv(), d=nn.Dropout())
        assert names(P(), graph) == [[["d"], "c"]]


class TestForks:
    def test_nested(self):
        class P(Pattern):
            tree = (Fork(operator.mul, (Fork(operator.add, (nn.Conv2d,), (nn.Linear,)),), ()), nn.ReLU)

        graph = trace(lambda self, x: self.r(x * (self.l(x) + self.c(x))), c=conv(), l=nn.Linear(8, 8), r=nn.ReLU())
        (match,) = match_tree(graph, pattern=P())
        assert [node.name for node in match.nodes] == ["c", "l", "add", "mul", "r"]
        assert match.tree_match.serialize() == [
            {"join": "mul", "branches": [[{"join": "add", "branches": [["c"], ["l"]]}], []]},
            "r",
        ]

    def test_operands_of_a_difference_do_not_commute(self):
        class P(Pattern):
            tree = (Fork(operator.sub, (nn.Conv2d,), ()),)

        assert len(names(P(), trace(lambda self, x: self.c(x) - x, c=conv()))) == 1
        assert names(P(), trace(lambda self, x: x - self.c(x), c=conv())) == []

    def test_own_value_as_residual_is_declined(self):
        def forward(self, x):
            y = self.b(self.c(x))
            return F.relu(y + y)

        plan = get_transformation_plan(trace(forward, c=conv(), b=nn.BatchNorm2d(4)), patterns=[ConvAddActPattern()])
        assert plan.matches == {}
        assert "own other input" in plan.declined[0].reason

    def test_two_convolutions_the_first_operand_is_the_trunk(self):
        net = trace(
            lambda self, x: F.relu(self.b(self.c(x)) + self.b2(self.c2(x))),
            c=conv(), b=nn.BatchNorm2d(4), c2=conv(), b2=nn.BatchNorm2d(4),
        )  # fmt: skip
        (match,) = match_tree(net, pattern=ConvAddActPattern())
        assert [node.name for node in match.nodes][:2] == ["c", "b"]
        result = transform(net, patterns=[ConvAddActPattern(), ConvPattern()])
        kinds = [type(m) for m in result.model.children()]
        assert sorted(kinds, key=str) == sorted([QConvAdd, QConv], key=str)
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0


class TestOutsideUse:
    def test_value_used_elsewhere(self):
        def forward(self, x):
            y = self.b(self.c(x))
            return self.r(y) * y

        plan = get_transformation_plan(
            trace(forward, c=conv(), b=nn.BatchNorm2d(4), r=nn.ReLU()), patterns=[ConvBNActPattern()]
        )
        assert plan.matches == {}
        (declined,) = plan.declined
        assert str(declined) == "c: ConvBNActPattern declined: b feeds 2 users (r, mul)"
        assert plan.why_not("c") == ["c: ConvBNActPattern declined: b feeds 2 users (r, mul)"]

    def test_graph_output_in_the_middle(self):
        def forward(self, x):
            y = self.c(x)
            return self.r(y), y

        plan = get_transformation_plan(trace(forward, c=conv(), r=nn.ReLU()), patterns=[ConvBNActPattern()])
        assert plan.declined[0].reason == "c is an output of the model"


class TestWrongTrees:
    @pytest.mark.parametrize(
        ("tree", "message"),
        [
            (None, "declares no tree"),
            ((), "Expected a tuple of elements"),
            (nn.Linear, "Expected a tuple of elements"),
            ((3,), "contains 3"),
            ((nn.Linear(2, 2),), "contains Linear"),
            ((Wildcard(nn.ReLU),), "only wildcards"),
            ((nn.ReLU, Fork(operator.add, (), ())), "put the Fork first"),
        ],
    )
    def test_message(self, tree, message):
        class P(Pattern):
            graft = FusedChain

        P.tree = tree
        with pytest.raises(PatternError, match=message):
            transform(nn.Sequential(nn.ReLU()), patterns=[P()])

    def test_fork_with_one_branch(self):
        with pytest.raises(PatternError, match="at least two"):
            Fork(operator.add, ())

    def test_wildcard_with_no_room(self):
        with pytest.raises(PatternError, match="at least 1"):
            Wildcard(nn.ReLU, max_count=0)
