"""Telling JSON files apart, and damaged ones."""

import pytest

from embedl_deploy.errors import InputError
from embedl_deploy.page import parts_of, render_page
from support import run_parts
from support.variants import variants

PARTS = run_parts.parts()


@pytest.mark.parametrize("name", PARTS)
def test_each_part_is_known_by_what_it_holds(name):
    assert parts_of(PARTS[name]) == {name: PARTS[name]}


def test_parts_are_found_one_level_down_as_commands_print_them():
    printed = {name: PARTS[name] for name in ("transformation", "quantization", "float32")}
    assert parts_of({**printed, "export": {"path": "a.onnx"}, "calibrated_with": 8}) == printed
    assert parts_of({"engine": "a.engine", "report": PARTS["engine"]}) == {"engine": PARTS["engine"]}
    assert parts_of({"words": "none", "list": [PARTS["check"]]}) == {}


def test_a_plan_is_the_transformation_that_it_would_be():
    match = {"node": "relu", "pattern": "P", "stage": "fusion", "nodes": ["conv", "relu"], "reason": ""}
    plan = {"format": "embedl-deploy/plan", "version": 1, "model": {"class": "Net"}, "backend": "acme", "declined": []}
    plan["matches"] = [{**match, "apply": True}, {**match, "pattern": "Q", "apply": False, "reason": "switched off"}]
    page = render_page(**parts_of(plan))
    assert "1 rewrite applied, 1 skipped" in page and "switched off" in page and "Net · backend acme" in page


def test_trials_of_a_search_are_points_of_a_frontier():
    best = {"name": "mixed", "objective": 9.0, "accuracy": 25.0, "outcome": "fewer bytes", "quantized": 4}
    refused = {"name": "all", "objective": None, "accuracy": 20.0, "outcome": "refused"}
    search = {"objective": "activation bytes", "measure": "sqnr", "best": best, "trials": [best, refused]}
    point = {"objective": 9.0, "accuracy": 25.0, "decision": "mixed: fewer bytes", "chosen": True}
    words = {"objective": "activation bytes", "accuracy": "SQNR, dB"}
    assert parts_of(search) == {"frontier": {**words, "points": [point], "not_drawn": ["all: refused"]}}
    assert "mixed: fewer bytes" in render_page(frontier=search)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_damaged_is_refused_in_words(name):
    plain = PARTS[name]
    for key in ("points", "layers", "graph", "by_module"):
        if key in plain:
            plain = {**plain, key: plain[key][:1]}
    refused = []
    for other in list(variants(plain))[::3]:
        try:
            render_page(**{name: other})
        except InputError as error:
            refused.append(str(error))
    assert refused and all(name in message for message in refused)
