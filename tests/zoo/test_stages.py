"""What becomes of a model, stage by stage."""

import pytest

from support.zoo_family import MEMBERS
from zoo.stages import STAGES, run_stages


def outcomes(name):
    told = []
    (member,) = (member for member in MEMBERS if member.name == name)
    run_stages(member, lambda stage, outcome: told.append((stage, outcome)))
    assert [stage for stage, outcome in told if not outcome] == [stage for stage, outcome in told if outcome]
    return {stage: outcome for stage, outcome in told if outcome}


def test_all_stages_of_a_model_that_passes_them():
    found = outcomes("good")
    assert tuple(found) == STAGES
    assert all(outcome["ok"] and outcome["seconds"] >= 0 for outcome in found.values())
    assert found["build"]["parameters"] == 4 * 8 * 9 + 8 + 8 * 4 + 4
    assert found["transform"] == found["transform"] | {"capture": "symbolic", "rewrites": 2}
    assert (found["quantize"]["weights"], found["quantize"]["unfused"]) == (2, [])
    assert 20 < found["quantize"]["sqnr"] < 60
    assert found["engine"]["kernels"] > 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("zero", "the model itself computes nothing but zeros, or what is no number"),
        ("doubtful", "ValueError: no input will do"),
    ],
)
def test_stages_that_need_a_failed_one_are_not_tried(name, reason):
    found = outcomes(name)
    assert list(found) == ["build"]
    assert found["build"]["reason"] == reason
