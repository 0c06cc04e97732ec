"""Patterns that fail, or are wrong: undone, told, and the rest is applied."""

import pytest
import torch
from torch import nn

from embedl_deploy import (
    transform,
)
from embedl_deploy.errors import PatternError
from embedl_deploy.patterns import Pattern, QDQPoint
from support.small_patterns import ConvBNActPattern, ConvPattern, FusedChain


class TestPatternsThatFail:
    class Failing(Pattern):
        """Edits the graph in every way, then raises."""

        tree = (nn.Conv2d,)

        def replace(self, pattern_match):
            node = pattern_match.tree_match.last
            graph_module = node.graph.owning_module
            graph_module.add_submodule("debris", nn.Linear(1, 1))
            with node.graph.inserting_before(node):
                other = node.graph.call_function(torch.neg, (node.args[0],))
            node.replace_all_uses_with(other)
            other.meta["debris"] = True
            node.graph.erase_node(node)
            raise RuntimeError("broken on purpose")

    def test_rolled_back_and_the_rest_applied(self, net):
        result = transform(net, patterns=[ConvBNActPattern(), self.Failing()])
        assert result.report["failed_count"] == 1
        (failed,) = result.report["failed"]
        assert failed["pattern"] == "Failing"
        assert failed["node"] == "tail"
        assert failed["reason"] == "RuntimeError: broken on purpose"
        assert result.report["applied_count"] == 3
        assert not hasattr(result.model, "debris")
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0
        assert "Failed and undone" in str(result.report)
        assert "tail: Failing failed: RuntimeError: broken on purpose" in result.report.why_not("tail")

    def test_failing_before_others_of_its_kind(self):
        class Sometimes(Pattern):
            tree = (nn.Conv2d,)

            def replace(self, pattern_match):
                if pattern_match.node_name == "_1":
                    return TestPatternsThatFail.Failing.replace(self, pattern_match)
                return super().replace(pattern_match)

            graft = FusedChain

        net = nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in range(4))).eval()
        result = transform(net, patterns=[Sometimes()])
        assert [m["node"] for m in result.report["applied"]] == ["_0", "_2", "_3"]
        assert [m["node"] for m in result.report["failed"]] == ["_1"]
        assert result.verify(torch.randn(1, 2, 3, 3)).max_abs == 0

    def test_conversion_that_fails_is_not_tried_for_ever(self, net):
        class FailingConversion(self.Failing):
            is_conversion = True

        result = transform(net, patterns=[FailingConversion(), ConvBNActPattern()])
        assert result.report["failed_count"] == 4
        assert result.report["applied_count"] == 3
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_strict_raises(self, net):
        with pytest.raises(PatternError, match=r"'Failing' failed at 'tail'.*broken on purpose"):
            transform(net, patterns=[ConvBNActPattern(), self.Failing()], strict=True)

    def test_graph_left_broken_without_raising(self, net):
        class Vandal(Pattern):
            tree = (nn.Conv2d,)

            def replace(self, pattern_match):
                pattern_match.tree_match.last.target = "not.there"
                return [pattern_match.tree_match.last]

        result = transform(net, patterns=[ConvBNActPattern(), Vandal()])
        assert [m["pattern"] for m in result.report["failed"]] == ["Vandal"]
        assert result.report["applied_count"] == 3
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_replace_that_returns_nothing(self, net):
        class Silent(Pattern):
            tree = (nn.Conv2d,)

            def replace(self, pattern_match):
                return None

        result = transform(net, patterns=[ConvBNActPattern(), Silent()])
        assert "expected the list of new nodes" in result.report["failed"][0]["reason"]

    def test_match_that_raises(self, net, caplog):
        class Lost(Pattern):
            graft = FusedChain

            def match(self, graph_module):
                raise KeyError("lost")

        result = transform(net, patterns=[Lost(), ConvBNActPattern()])
        assert result.report["applied_count"] == 3
        (failed,) = result.report["failed"]
        assert (failed["pattern"], failed["reason"]) == ("Lost", "its match() failed: KeyError: 'lost'")
        assert "'Lost'" in caplog.text
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0
        with pytest.raises(PatternError, match=r"'Lost'.*lost"):
            transform(net, patterns=[Lost()], strict=True)

    def test_check_that_raises(self, net):
        class Blind(Pattern):
            tree = (nn.Conv2d,)
            graft = FusedChain

            def check(self, match):
                raise KeyError("lost")

        result = transform(net, patterns=[Blind(), ConvBNActPattern()])
        assert result.report["applied_count"] == 3
        assert {entry["reason"] for entry in result.report["failed"]} == {"check() raised KeyError: 'lost'"}
        with pytest.raises(PatternError, match=r"'Blind'.*lost"):
            transform(net, patterns=[Blind()], strict=True)

    def test_check_that_raises_at_one_place_fails_there_only(self):
        class Once(Pattern):
            tree = (nn.Linear,)
            graft = FusedChain

            def check(self, match):
                if match.node_name == "_0":
                    raise IndexError("out of range")

        result = transform(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), patterns=[Once()])
        assert (result.report["applied_count"], result.report["declined"]) == (1, [])
        (failed,) = result.report["failed"]
        assert (failed["node"], failed["reason"]) == ("_0", "check() raised IndexError: out of range")
        assert "check() raised IndexError" in str(result.report)
        assert any("failed" in line for line in result.report.why_not("_0"))

    @pytest.mark.parametrize("is_conversion", [False, True])
    def test_check_that_returns_no_reason(self, is_conversion):
        class Agreeing(Pattern):
            tree = (nn.Linear,)
            graft = FusedChain

            def check(self, match):
                return True

        Agreeing.is_conversion = is_conversion
        result = transform(nn.Sequential(nn.Linear(3, 3)), patterns=[Agreeing()])
        wanted = "check() returned True; expected None to take the place, or the reason not to as text"
        assert [entry["reason"] for entry in result.report["failed"]] == [wanted]
        assert "check() returned True" in str(result.report)
        with pytest.raises(
            PatternError, match=r"'Agreeing' failed at '_0': check\(\) returned True; .* as text\. Repair"
        ):
            transform(nn.Sequential(nn.Linear(3, 3)), patterns=[Agreeing()], strict=True)

    def test_warning_names_the_line_of_the_pattern(self, caplog):
        class Breaking(Pattern):
            tree = (nn.Linear,)

            def replace(self, pattern_match):
                raise KeyError("boom")

        transform(nn.Sequential(nn.Linear(3, 3)), patterns=[Breaking()])
        (record,) = caplog.records
        head, tail = (
            "Pattern 'Breaking' failed at '_0' in replace (test_failing_patterns.py:",
            "): KeyError: 'boom'. Nothing",
        )
        assert record.getMessage().startswith(head)
        assert tail in record.getMessage()

    def test_graft_whose_constructor_does_not_fit(self, net):
        class TooFew(nn.Module):
            def __init__(self, conv):
                super().__init__()

        class Misfit(ConvBNActPattern):
            graft = TooFew

        with pytest.raises(PatternError, match=r"'Misfit'.*TooFew\(conv\) does not fit the tree, which gives 3"):
            transform(net, patterns=[Misfit()])

    def test_graft_that_raises(self, net):
        class Refusing(nn.Module):
            def __init__(self, *parts):
                raise ValueError("I refuse")

        class Pattern2(ConvBNActPattern):
            graft = Refusing

        result = transform(net, patterns=[Pattern2(), ConvPattern()])
        assert {m["reason"] for m in result.report["failed"]} == {"ValueError: I refuse"}
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_neither_graft_nor_replace(self, net):
        class Nothing(Pattern):
            tree = (nn.Conv2d,)

        with pytest.raises(PatternError, match="neither graft nor replace"):
            transform(net, patterns=[Nothing()])

    def test_wrong_qdq_points(self, net):
        class Wrong(ConvPattern):
            qdq_points = {"input"}

        with pytest.raises(PatternError, match="expected QDQPoint members"):
            transform(net, patterns=[Wrong()])

    @pytest.mark.parametrize("points", [QDQPoint.INPUT, "input", None])
    def test_qdq_points_that_are_no_set(self, net, points):
        class Wrong(ConvPattern):
            qdq_points = points

        with pytest.raises(PatternError, match=r"'Wrong': qdq_points is .*; expected a set of QDQPoint members"):
            transform(net, patterns=[Wrong()])


def writes(conv):
    conv.weight.data.mul_(3)
    conv.weight.requires_grad_(False)


def strides(conv):
    conv.stride, conv.note = (2, 2), "mine"


def takes_away(conv):
    conv.bias = None
    conv.train()


class TestWhatFailingPatternsDidToModules:
    """A pattern that has raised leaves no trace in modules and tensors, its own or others'."""

    class Replacing(Pattern):
        """Rewrites the first convolution, and fails at the others after it has changed the last one."""

        tree = (nn.Conv2d,)
        graft = FusedChain

        def __init__(self, change, raises):
            self.change, self.raises = change, raises

        def replace(self, pattern_match):
            node = pattern_match.tree_match.last
            if node.name == "_0":
                return super().replace(pattern_match)
            module = node.graph.owning_module
            self.change(module.get_submodule("2"))
            module.get_submodule("3").running_mean.add_(1)
            if self.raises:
                raise RuntimeError("on purpose")
            node.target = "nowhere"
            return [node]

    class Grafting(Pattern):
        """Fails at every convolution after it has changed it."""

        tree = (nn.Conv2d,)

        def __init__(self, change):
            def graft(conv):
                change(conv)
                raise RuntimeError("on purpose")

            self.graft = graft

    @pytest.mark.parametrize("change", [writes, strides, takes_away])
    @pytest.mark.parametrize(
        ("pattern", "failed"),
        [
            (Grafting, ["_0", "_1", "_2"]),
            (lambda change: TestWhatFailingPatternsDidToModules.Replacing(change, raises=True), ["_1", "_2"]),
            (lambda change: TestWhatFailingPatternsDidToModules.Replacing(change, raises=False), ["_1", "_2"]),
        ],
        ids=["graft", "replace", "broken graph"],
    )
    def test_it_is_put_back(self, pattern, failed, change):
        torch.manual_seed(0)
        convs = [nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)]
        model, x = nn.Sequential(*convs, nn.BatchNorm2d(2)).eval(), torch.randn(2, 2, 4, 4)
        result = transform(model, x, patterns=[pattern(change)])
        assert [entry["node"] for entry in result.report["failed"]] == failed
        assert result.verify(x).max_abs == 0
        left = [part for part in result.model.modules() if isinstance(part, nn.Conv2d)]
        assert [(conv.stride, conv.training, "note" in vars(conv)) for conv in left] == [((1, 1), False, False)] * 3
        assert all(conv.bias is not None and conv.weight.requires_grad for conv in left)
