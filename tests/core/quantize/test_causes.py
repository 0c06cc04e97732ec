"""Codes beside the words: why a point is as it is, why an operation has none, why nothing was corrected."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.patterns import Pattern
from embedl_deploy.quantize import (
    Correction,
    ModulesToSkip,
    QuantConfig,
    QuantizationRecipe,
    TensorQuantConfig,
    insert_qdq,
    quantization_recipe,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.reporting.causes import PointCause, UncoveredCause, WhyPoint, WhyUncovered
from embedl_deploy.quantize.reporting.corrections import _WORDS, WhyNotCorrected, correction, not_corrected
from embedl_deploy.quantize.reporting.report import Uncovered
from support.nets import net
from support.quantizable import fused


def objection(point):
    return "no kernel" if point.kind.value == "weight" else None


@pytest.mark.parametrize(
    ("config", "inputs", "weights"),
    [
        (QuantConfig(), "configuration", "configuration"),
        (QuantConfig(weight=None), "configuration", "configuration"),
        (QuantConfig(overrides={"*": None}), "override", "override"),
        (QuantConfig(skip={"*"}), "skip", "skip"),
        (QuantConfig(skip=ModulesToSkip(weight={nn.Linear})), "configuration", "skip"),
        (QuantConfig(skip_weight_quant_for={nn.Linear}), "configuration", "skip_weight_quant_for"),
        (QuantConfig(policy=objection), "configuration", "policy"),
    ],
)
def test_the_code_of_the_rule_that_decided(config, inputs, weights):
    result = fused(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    points = quantization_report(insert_qdq(result.model, result.matches, config)).points
    assert {point.kind.value: point.cause.value for point in points} == {"input": inputs, "weight": weights}


def test_every_rule_has_words():
    told = {why: str(PointCause(why, "fc", "no kernel", "weights")) for why in WhyPoint}
    assert told.pop(WhyPoint.HOOKS).startswith("hooks of fc would not run: remove them")
    assert told == {
        WhyPoint.CONFIGURATION: "configuration: weights in float",
        WhyPoint.OVERRIDE: "override for fc: weights in float",
        WhyPoint.SKIP: "skip: fc",
        WhyPoint.SKIP_WEIGHT: "skip_weight_quant_for: fc",
        WhyPoint.POLICY: "policy fc: no kernel",
        WhyPoint.SAME_IN_EVERY_CALL: "what it computes is the same in every call, of parameters and sizes alone",
        WhyPoint.INPUTS_IN_FLOAT: "no input of the module is quantized",
        WhyPoint.BLOCKS: "scales in blocks are for matrix products, not for fc",
        WhyPoint.NOT_WHOLE_BLOCKS: "scales in blocks are for rows of whole blocks: fc",
        WhyPoint.RECIPE: "the recipe",
    }


class Declining(Pattern):
    tree = (nn.Linear,)
    graft = nn.Sequential

    def check(self, match):
        return "it is odd"


def test_the_code_of_an_operation_without_a_point():
    """Whatever the plan knows of it; what it is in words stays a tuple of three, which copies keep."""
    model = net(lambda m, x: m.bag(m.fc(x).long().relu()) @ x.T, fc=nn.Linear(4, 4), bag=nn.EmbeddingBag(4, 4))
    result = transform(model, patterns=[Declining()])
    uncovered = quantization_report(insert_qdq(result.model)).uncovered
    assert [(entry.operator, entry.cause.value) for entry in uncovered] == [
        ("Linear", "declined"),
        ("EmbeddingBag", "bound_by_memory"),
        ("matmul", "not_fused"),
    ]
    assert uncovered[0] == ("fc", "Linear", "it is odd")
    for copied in (copy.deepcopy(uncovered), pickle.loads(pickle.dumps(uncovered))):
        assert copied == uncovered and [entry.cause for entry in copied] == [entry.cause for entry in uncovered]


def test_every_reason_for_no_point_has_words():
    for why in WhyUncovered:
        told = Uncovered.because("fc", "Linear", UncoveredCause(why, "x", "matmul"))
        assert told[:2] == ("fc", "Linear") and told.cause is why
        assert told.reason.endswith(" (it computes matmul)") and "{" not in told.reason


def test_every_reason_for_no_correction_has_words():
    names = (
        "selector",
        "module",
        "source",
        "reader",
        "count",
        "node",
        "product",
        "function",
        "operator",
        "reason",
        "more",
    )
    data = dict.fromkeys((*names, "samples", "ratio", "after", "before", "others"), "something")
    assert set(_WORDS) == set(WhyNotCorrected)
    for why in WhyNotCorrected:
        told = correction("smoothing", "fc", not_corrected(why, **data), besides="; its bias was corrected")
        assert told.declined and told.cause is why
        assert told.outcome.startswith("declined: ") and told.outcome.endswith("; its bias was corrected")
        assert told.to_dict()["cause"] == why.value
    assert not correction("smoothing", "declined: fc", "folded into fc").declined


@pytest.fixture(scope="module")
def quantized():
    result = fused(net(lambda m, x: m.two(m.one(x)), one=nn.Linear(4, 4), two=nn.Linear(4, 4)))
    config = QuantConfig(TensorQuantConfig(symmetric=False), skip={"two"})
    return result, quantize(result, [torch.randn(2, 4)], config, learned_rounding=True, smooth_quant=True)


def test_a_recipe_keeps_the_codes(quantized):
    result, model = quantized
    data = json.loads(quantization_recipe(model).to_json())
    assert {(point["path"], point["cause"]) for point in data["points"]} == {
        (point.path, point.cause.value) for point in quantization_report(model).points
    }
    assert {entry["what"]: entry["cause"] for entry in data["corrections"]}.keys() == {"smoothing", "learned rounding"}
    rebuilt = quantization_report(QuantizationRecipe.from_json(json.dumps(data)).rebuild(result))
    report = quantization_report(model)
    assert (rebuilt.points, rebuilt.corrections) == (report.points, report.corrections)


def test_a_recipe_from_before_there_were_codes(quantized):
    result, model = quantized
    data = json.loads(quantization_recipe(model).to_json())
    for entry in (*data["points"], *data["corrections"]):
        del entry["cause"]
    data["corrections"][0]["outcome"] = "declined: it was odd"
    rebuilt = quantization_report(QuantizationRecipe.from_json(json.dumps(data)).rebuild(result))
    assert {point.cause for point in rebuilt.points} == {None}
    assert [point.rule for point in rebuilt.points] == [point.rule for point in quantization_report(model).points]
    what, where = data["corrections"][0]["what"], data["corrections"][0]["where"]
    assert rebuilt.corrections[0] == Correction(what, where, "declined: it was odd", WhyNotCorrected.NOT_RECORDED)
