"""Causes of what became of matches: a code beside the words, in reports and in plans as JSON."""

import json

from torch import nn

from embedl_deploy import apply_transformation_plan, get_transformation_plan
from embedl_deploy.patterns import Pattern
from embedl_deploy.patterns.causes import Cause, Why
from embedl_deploy.plan.causes import Answer, NotTaken, Verdict, WhyUnfused


class Pair(Pattern):
    tree = (nn.Linear, nn.ReLU)
    graft = nn.Sequential


class Broken(Pair):
    def replace(self, pattern_match):
        raise RuntimeError("broken on purpose")


class Single(Pattern):
    tree = (nn.Linear,)
    graft = nn.Sequential


def plan_of(*patterns, layers=4):
    net = nn.Sequential(*(nn.Linear(2, 2) if index % 2 == 0 else nn.ReLU() for index in range(layers)))
    return get_transformation_plan(net, patterns=list(patterns))


def codes(plan):
    return [(m["node"], m["pattern"], m["apply"], m["cause"]) for m in json.loads(plan.to_json())["matches"]]


def test_codes_in_a_plan():
    plan = plan_of(Pair(), Single())
    plan.disable("_3", "Pair")
    plan.get("_0", "Single").apply = False
    assert codes(plan) == [
        ("_1", "Pair", True, None),
        ("_3", "Pair", False, "switched_off"),
        ("_0", "Single", False, "overlaps"),
        ("_2", "Single", True, None),
    ]


def test_a_flag_that_was_set_by_hand_is_a_switch():
    plan = plan_of(Single(), layers=2)
    plan.get("_0", "Single").apply = False
    assert codes(plan) == [("_0", "Single", False, "switched_off")]


def test_codes_in_a_report():
    report = apply_transformation_plan(plan_of(Broken(), Single(), layers=2)).report
    assert [(m["pattern"], m["cause"], m["reason"]) for m in report["failed"]] == [
        ("Broken", "failed", "RuntimeError: broken on purpose")
    ]
    assert [(m["pattern"], m["cause"], m["reason"]) for m in report["applied"]] == [
        ("Single", "moved_up", "moved up: Broken failed")
    ]


def test_every_cause_has_words():
    assert {why: str(Cause(why, "Pair", "_1", " (said)")) for why in Why} == {
        Why.OVERLAPS: "overlaps Pair at _1 (said)",
        Why.SWITCHED_OFF: "switched off in the plan",
        Why.FAILED: " (said)",
        Why.MOVED_UP: "moved up: Pair failed",
    }


def answer_codes(answers):
    return [(answer.pattern, answer.code) for answer in answers]


def test_codes_in_answers():
    plan = plan_of(Pair(), Single())
    plan.get("_2", "Single").apply = False
    plan.disable("_3", "Pair")
    assert answer_codes(plan.answers("_0")) == [("Pair", "applies"), ("Single", "overlaps")]
    assert answer_codes(plan.answers("_2")) == [("Pair", "switched_off"), ("Single", "applies")]
    plan.get("_2", "Single").apply = False
    assert answer_codes(plan.answers("_2", "Single")) == [("Single", "switched_off")]
    assert [answer.to_dict() for answer in plan.answers("_1", "Single")] == [
        {"node": "_1", "pattern": None, "cause": "no_pattern"}
    ]
    assert answer_codes(plan_of(Pair(), layers=1).answers("_0")) == [("Pair", "does_not_match")]
    assert [str(answer) for answer in plan.answers("_0")] == plan.why_not("_0")


class OddSingle(Single):
    def check(self, match):
        return "it is odd"


def test_a_report_answers_by_codes_where_a_rewrite_failed():
    """The plan says that Broken applies; its reason, in which another pattern is named, hides none of that one's."""

    class BrokenApplies(Broken):
        def replace(self, pattern_match):
            raise RuntimeError("OddSingle applies")

    report = apply_transformation_plan(plan_of(BrokenApplies(), Single(), OddSingle(), layers=2)).report
    assert answer_codes(report.answers("_0")) == [
        ("BrokenApplies", "failed"),  # what became of it
        ("BrokenApplies", "failed"),  # and its match in the plan
        ("Single", "applies"),
        ("OddSingle", "declined"),
    ]
    assert answer_codes(report.answers("_0", "OddSingle")) == [("OddSingle", "declined")]


def test_why_a_node_is_unfused():
    plan = plan_of(Pair(), OddSingle(), layers=3)
    assert apply_transformation_plan(plan).report["unfused_causes"] == {"_0_1": "no_match", "_2": "declined"}
    plan = plan_of(Pair(), layers=2)
    plan.get("_1", "Pair").apply = False
    assert apply_transformation_plan(plan).report["unfused_causes"] == {"_0": "switched_off", "_1": "switched_off"}
    report = apply_transformation_plan(plan_of(Broken(), layers=2)).report
    assert report["unfused_causes"] == {"_0": "failed", "_1": "failed"}


def test_every_reason_has_words():
    assert {why: str(NotTaken(why, "Pair", "because")) for why in WhyUnfused} == {
        WhyUnfused.UNSUPPORTED: "because",
        WhyUnfused.FAILED: "Pair failed: because",
        WhyUnfused.SWITCHED_OFF: "because",
        WhyUnfused.DECLINED: "because",
        WhyUnfused.OVERLAPS: "Pair because",
        WhyUnfused.NO_MATCH: "no fusion has taken it",
    }
    assert {verdict: str(Answer("a", verdict, "Pair", ("a", "b"), "because")) for verdict in Verdict} == {
        Verdict.APPLIES: "a: Pair applies (a → b): because",
        Verdict.SKIPPED: "a: Pair skipped (a → b): because",
        Verdict.FAILED: "a: Pair failed (a → b): because",
        Verdict.DECLINED: "a: Pair declined (a → b): because",
        Verdict.DOES_NOT_MATCH: "a: Pair does not match (a → b): because",
        Verdict.NO_PATTERN: "a: no pattern has an element for it",
    }
