"""Patterns that fail: told alike, whatever fails, and the next in line has the nodes."""

import pytest
import torch
from torch import fx, nn

from embedl_deploy import apply_transformation_plan, get_transformation_plan, load_transformation_plan, transform
from embedl_deploy.errors import PatternError
from embedl_deploy.patterns import Pattern
from support.small_patterns import ConvBNActPattern, ConvPattern

X = torch.randn(1, 4, 8, 8)


class Failing(Pattern):
    """Edits the graph, then raises."""

    tree = (nn.Conv2d,)
    origin = "acme-npu 1.2"

    def replace(self, pattern_match):
        pattern_match.tree_match.last.target = "not.there"
        raise RuntimeError("broken on purpose")


class FailingChain(Failing):
    tree = (nn.Conv2d, nn.BatchNorm2d)


class NoCheck(Failing):
    def check(self, match):
        raise RuntimeError("broken on purpose")


class NoMatch(Failing):
    def match(self, graph_module):
        raise RuntimeError("broken on purpose")


def picky(node: fx.Node) -> bool:
    """A predicate that raises."""
    raise RuntimeError("broken on purpose")


class NoPredicate(Failing):
    tree = (picky,)


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()


@pytest.mark.parametrize("failing", [Failing, FailingChain, NoCheck, NoMatch, NoPredicate])
def test_the_next_in_line_has_the_nodes_and_both_are_told(failing, net, caplog):
    result = transform(net, patterns=[failing(), ConvBNActPattern(), ConvPattern()])
    assert {m["pattern"] for m in result.report["failed"]} == {failing.__name__}
    assert [m["pattern"] for m in result.report["applied"]] == ["ConvBNActPattern", "ConvPattern"]
    assert result.verify(X).max_abs == 0
    for failed in result.report["failed"]:
        assert "RuntimeError: broken on purpose" in failed["reason"]
        assert failed["origin"] == "acme-npu 1.2"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == result.report["failed_count"]
    assert all(f"Pattern '{failing.__name__}' (from acme-npu 1.2) failed " in text for text in messages)
    assert all("(test_failures.py:" in text for text in messages)


@pytest.mark.parametrize("failing", [Failing, NoCheck, NoMatch, NoPredicate])
def test_strict_raises_with_the_distribution(failing, net):
    wanted = rf"'{failing.__name__}' \(from acme-npu 1.2\) failed .*RuntimeError: broken on purpose"
    with pytest.raises(PatternError, match=wanted):
        transform(net, patterns=[failing()], strict=True)


def test_who_moved_up_is_in_the_report(net):
    result = transform(net, patterns=[FailingChain(), ConvBNActPattern(), ConvPattern()])
    assert [m.get("reason") for m in result.report["applied"]] == ["moved up: FailingChain failed", None]
    assert "moved up: ConvBNActPattern" in " ".join(str(result.report).split())
    lines = result.report.why_not("_0")
    assert lines[0] == "_0: FailingChain failed: RuntimeError: broken on purpose"


def test_what_was_switched_off_does_not_move_up(net):
    plan = get_transformation_plan(net, patterns=[FailingChain(), ConvBNActPattern(), ConvPattern()])
    plan.disable("_1", "FailingChain")
    plan.get("_2", "ConvBNActPattern").apply = False
    plan.get("_1", "FailingChain").apply = True
    result = apply_transformation_plan(plan)
    assert [m["nodes"] for m in result.report["applied"]][-1] == ["_3"]
    assert result.verify(X).max_abs == 0


def test_conversions_move_up_too(net):
    first = type("First", (FailingChain,), {"is_conversion": True})()
    second = type("Second", (ConvBNActPattern,), {"is_conversion": True})()
    result = transform(net, patterns=[first, second])
    assert [(m["pattern"], m["nodes"]) for m in result.report["failed"]] == [("First", ["_0", "_1"])]
    assert [(m["pattern"], m["nodes"]) for m in result.report["applied"]] == [("Second", ["_0", "_1", "_2"])]
    assert result.report["skipped"] == []
    assert result.verify(X).max_abs == 0


@pytest.mark.parametrize("failing", [NoMatch, NoCheck])
def test_a_conversion_that_fails_in_every_round_is_told_once(failing, net, caplog):
    first = type("First", (failing,), {"is_conversion": True})()
    second = type("Second", (ConvBNActPattern,), {"is_conversion": True})()
    result = transform(net, patterns=[first, second])
    assert len(caplog.records) == result.report["failed_count"] == (1 if failing is NoMatch else 2)


def test_a_pattern_that_cannot_look_is_in_the_plan_and_its_json(net):
    patterns = [NoMatch(), ConvPattern()]
    plan = get_transformation_plan(net, patterns=patterns)
    assert "NoMatch" in str(plan)
    assert any("NoMatch failed: its match() failed" in line for line in plan.why_not("_0"))
    again = load_transformation_plan(plan.to_json(), net, patterns=patterns)
    assert apply_transformation_plan(again).report["failed_count"] == 1
