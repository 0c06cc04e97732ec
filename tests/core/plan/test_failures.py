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


def ending(*_):
    """What a method must not do."""
    raise SystemExit("broken on purpose")


def ending_predicate(node: fx.Node) -> bool:
    """A predicate that must not do that either."""
    raise SystemExit("broken on purpose")


def interrupted(*_):
    """What is the user's to do."""
    raise KeyboardInterrupt


ENDINGS = {
    "graft": {"graft": staticmethod(ending), "replace": Pattern.replace},
    "replace": {"replace": ending},
    "check": {"check": ending},
    "match": {"match": ending},
    "predicate": {"tree": (ending_predicate,)},
}


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


@pytest.mark.parametrize("methods", ENDINGS.values(), ids=ENDINGS)
def test_a_pattern_cannot_end_the_process(methods, net):
    pattern = type("Ending", (Failing,), methods)()
    report = transform(net, patterns=[pattern, ConvBNActPattern()]).report
    assert all("SystemExit: broken on purpose" in entry["reason"] for entry in report["failed"])
    assert {entry["origin"] for entry in report["failed"]} == {"acme-npu 1.2"}
    assert report["applied_count"] == 1
    with pytest.raises(PatternError, match=r"'Ending' \(from acme-npu 1.2\) failed .*SystemExit: broken on"):
        transform(net, patterns=[pattern], strict=True)


def test_the_user_can(net):
    for method in ("replace", "check", "match"):
        with pytest.raises(KeyboardInterrupt):
            transform(net, patterns=[type("Interrupted", (Failing,), {method: interrupted})()])


class Removing(Pattern):
    """A conversion that takes ReLUs out."""

    tree = (nn.ReLU,)
    is_conversion = True

    def replace(self, pattern_match):
        node = pattern_match.tree_match.last
        node.replace_all_uses_with(node.all_input_nodes[0])
        node.graph.erase_node(node)
        return []


def _keeps_the_old(_self, match):
    nodes = Removing.replace(Removing(), match)
    return nodes or [match.tree_match.last]


NOTHING_DONE = {
    "none": (lambda self, match: None, "replace() returned None; expected the list of new nodes"),
    "empty": (lambda self, match: [], "replace() returned [] but did not change the matched nodes, so nothing was"),
    "gone": (_keeps_the_old, "replace() returned nodes that are not in the graph: _2; expected the new nodes"),
}


@pytest.mark.parametrize(("replace", "words"), NOTHING_DONE.values(), ids=NOTHING_DONE)
def test_a_replace_that_replaces_nothing_has_failed(replace, words, net):
    pattern = type("Idle", (Pattern,), {"tree": (nn.ReLU,), "replace": replace})()
    result = transform(net, patterns=[pattern, ConvBNActPattern()])
    assert [m["pattern"] for m in result.report["applied"]] == ["ConvBNActPattern"]
    (failed,) = result.report["failed"]
    assert failed["reason"].startswith(f"PatternError: {words}")
    assert result.verify(X).max_abs == 0


def test_a_node_that_nothing_reads_is_no_replacement(net):
    def beside(_self, match):
        node = match.tree_match.last
        with node.graph.inserting_before(node):
            return [node.graph.call_function(torch.relu, node.args)]

    pattern = type("Beside", (Pattern,), {"tree": (nn.ReLU,), "replace": beside})()
    (failed,) = transform(net, patterns=[pattern]).report["failed"]
    assert "replace() created relu, which no other node reads" in failed["reason"]


def test_what_only_removes_is_applied_once(net, monkeypatch):
    calls = []
    monkeypatch.setattr(Removing, "replace", lambda s, match, old=Removing.replace: calls.append(1) or old(s, match))
    report = transform(net, patterns=[Removing()]).report
    assert (report["applied_count"], report["failed_count"], len(calls)) == (1, 0, 1)


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
