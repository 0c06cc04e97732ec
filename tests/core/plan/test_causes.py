"""Causes of what became of matches: a code beside the words, in reports and in plans as JSON."""

import json

from torch import nn

from embedl_deploy import apply_transformation_plan, get_transformation_plan
from embedl_deploy.patterns import Pattern
from embedl_deploy.patterns.causes import Cause, Why


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
