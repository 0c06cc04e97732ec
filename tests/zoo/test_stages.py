"""What becomes of a model, stage by stage."""

import pytest
import torch
from torch import nn

from support.zoo_family import MEMBERS
from zoo.backends import BACKENDS
from zoo.member import Made, settle_statistics
from zoo.stages import run_stages


def outcomes(name, *stages, **settings):
    told = []
    (member,) = (member for member in MEMBERS if member.name == name)
    run_stages(member, lambda stage, outcome: told.append((stage, outcome)), stages or None, **settings)
    assert [stage for stage, outcome in told if not outcome] == [stage for stage, outcome in told if outcome]
    return {stage: outcome for stage, outcome in told if outcome}


def test_all_stages_of_a_model_that_passes_them():
    found = outcomes("good")
    assert tuple(found) == BACKENDS["tensorrt"].stages
    assert all(outcome["ok"] and outcome["seconds"] >= 0 for outcome in found.values())
    assert found["build"]["parameters"] == 4 * 8 * 9 + 8 + 8 * 4 + 4
    assert found["transform"] == found["transform"] | {"capture": "symbolic", "rewrites": 2}
    assert (found["quantize"]["weights"], found["quantize"]["unfused"]) == (2, [])
    assert 20 < found["quantize"]["sqnr"] < 60
    assert found["engine"]["kernels"] > 0


def test_the_stages_of_a_backend_whose_engines_run_here():
    found = outcomes("good", backend="onnxruntime", policy="all")
    assert tuple(found) == BACKENDS["onnxruntime"].stages
    assert all(outcome["ok"] for outcome in found.values())
    # The second convolution's result is the model's output, quantized there.
    assert {name: found["engine"][name] for name in ("asked", "int8", "in_float")} == {
        "asked": 2,
        "int8": 2,
        "in_float": [],
    }
    assert found["run"]["sqnr"] is None or found["run"]["sqnr"] > 30


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


def test_some_stages_alone():
    assert list(outcomes("good", "build", "transform", "quantize")) == ["build", "transform", "quantize"]


def test_statistics_are_those_of_what_comes():
    made = Made(
        nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Flatten(0)), (torch.randn(4, 3, 5, 5) * 1e3 + 7,)
    )
    settle_statistics(made)
    made.model.eval()
    normalized = made.model(*made.args).detach()
    assert float(normalized.square().mean()) == pytest.approx(1, abs=0.02)
    assert float(normalized.mean()) == pytest.approx(0.7 * 7 / 1e3 * 0.7, abs=0.05), "a part of the mean is left"
    assert not made.model[0]._forward_pre_hooks
