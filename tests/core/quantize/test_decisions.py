"""Which rule decides whether a point is quantized, and that the report names it."""

import re
from collections import OrderedDict
from functools import cache

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.backend import PointKind
from embedl_deploy.errors import BackendNotFoundError, QuantizationConfigError, QuantizationError
from embedl_deploy.quantize import (
    LayerQuantConfig,
    ModulesToSkip,
    Precision,
    QuantConfig,
    TensorQuantConfig,
    insert_qdq,
    quantization_report,
)
from support.nets import net
from support.quantizable import fused, perceptron, residual_block
from support.small_patterns import QUANTIZABLE, QLinear

INT8, INT16 = TensorQuantConfig(), TensorQuantConfig(Precision.INT16)
PER_CHANNEL = TensorQuantConfig(per_channel=True)
INT4 = TensorQuantConfig(n_bits=4, block_size=4)


def report_of(model, config, patterns=QUANTIZABLE):
    result = transform(model, patterns=patterns)
    return quantization_report(insert_qdq(result.model, result.matches, config))


def rules(report):
    """What became of each point: the rule if nothing stands there, else the format."""
    return {f"{p.path} {p.label}": p.config or p.rule for p in report.points}


def skipped(report, *paths):
    """The rule that left exactly the inputs and weights of these modules in float."""
    without = {p.path for p in report.not_quantized}
    assert without == set(paths)
    assert not {p.path for p in report.quantized} & set(paths)
    (rule,) = {p.rule for p in report.not_quantized}
    return rule


@cache
def nested(trace):
    """A layer in a block in a list, one behind it, and one that no fusion takes."""
    block = nn.Sequential(OrderedDict(lin=nn.Linear(4, 4), act=nn.ReLU()))
    layers = {"blocks": nn.Sequential(block), "head": nn.Linear(4, 4), "up": nn.ConvTranspose1d(4, 4, 1)}
    model = net(lambda m, x: m.up(m.head(m.blocks(x)).unsqueeze(2)), **layers)
    return transform(model, torch.randn(2, 4), patterns=QUANTIZABLE, trace=trace)


def first_layer(point):
    return point.path == "first"


class TestSkip:
    @pytest.mark.parametrize(
        ("selector", "rule"),
        [
            ("fir*", "skip: 'fir*'"),
            (first_layer, "skip: first_layer"),
            (lambda point: point.module.act is not None, "skip: <lambda>"),
        ],
        ids=["glob", "predicate", "nameless predicate"],
    )
    def test_by_glob_or_predicate(self, selector, rule):
        assert skipped(report_of(perceptron(), QuantConfig(skip=[selector])), "first") == rule

    @pytest.mark.parametrize("wrapped", [False, True], ids=["the fused module", "the module that it wraps"])
    def test_by_instance(self, wrapped):
        result = fused(perceptron())
        module = result.model.get_submodule("second")
        config = QuantConfig(skip={module.linear if wrapped else module})
        report = quantization_report(insert_qdq(result.model, result.matches, config))
        assert skipped(report, "second") == f"skip: this very {'Linear' if wrapped else 'QLinear'}"

    @pytest.mark.parametrize("trace", ["symbolic", "export"])
    @pytest.mark.parametrize("named", ["blocks", "blocks.0", "b*s", "the module", "the model", "blocks.0.lin.linear"])
    def test_what_is_named_is_meant_with_all_inside(self, trace, named):
        result = nested(trace)
        selector = {"the module": "blocks", "the model": ""}.get(named, named)
        if named.startswith("the"):
            selector = result.model.get_submodule(selector)
        inside = [] if named == "the model" else ["head"]
        for config in (QuantConfig(skip=[selector]), QuantConfig(overrides={selector: None})):
            report = quantization_report(insert_qdq(result.model, result.matches, config))
            assert [(p.path, p.label) for p in report.quantized] == [
                (path, label) for path in inside for label in ("input 0", "weight")
            ]

    @pytest.mark.parametrize("trace", ["symbolic", "export"])
    def test_what_a_fusion_took_in_has_no_path_any_more(self, trace):
        result = nested(trace)
        message = r"selects 'blocks\.0\.act', which matches no module of the transformed model\. Near it: 'blocks\.0'"
        with pytest.raises(QuantizationConfigError, match=message):
            insert_qdq(result.model, result.matches, QuantConfig(skip=["blocks.0.act"]))

    @pytest.mark.parametrize("trace", ["symbolic", "export"])
    def test_what_has_no_place_stays_in_float_but_cannot_have_a_format(self, trace):
        result = nested(trace)
        report = quantization_report(insert_qdq(result.model, result.matches, QuantConfig(skip=["up"])))
        assert not report.not_quantized
        overrides = {"up": LayerQuantConfig(INT16, PER_CHANNEL)}
        with pytest.raises(QuantizationConfigError) as caught:
            insert_qdq(result.model, result.matches, QuantConfig(overrides=overrides))
        assert str(caught.value) == (
            "QuantConfig.overrides gives a format to 'up', but 'up' has no quantization point. Paths with points begin "
            "with blocks, head. Remove it from overrides, or see report.why_not('up') for why no fusion took it."
        )

    def test_by_class_of_a_wrapped_module(self):
        assert skipped(report_of(perceptron(), QuantConfig(skip={nn.ReLU})), "first") == "skip: ReLU"

    def test_by_class_of_the_fused_module(self):
        report = report_of(residual_block(), QuantConfig(skip={QLinear}))
        assert skipped(report, "fc") == "skip: QLinear"

    def test_places_and_weights_apart(self):
        config = QuantConfig(skip=ModulesToSkip(stub={"first"}, weight={"second"}))
        assert rules(report_of(perceptron(), config)) == {
            "first input 0": "skip: 'first'",
            "first weight": "INT8 per channel minmax",
            "second input 0": "INT8 minmax",
            "second weight": "skip: 'second'",
        }

    def test_smoothing_apart_from_both(self):
        report = report_of(perceptron(), QuantConfig(skip=ModulesToSkip(smooth={nn.Linear})))
        assert not report.not_quantized

    def test_weights_of_a_class(self):
        report = report_of(residual_block(), QuantConfig(skip_weight_quant_for=(nn.Conv2d,)))
        assert {(p.label, p.rule) for p in report.not_quantized} == {("weight", "skip_weight_quant_for: Conv2d")}
        assert [p.path for p in report.quantized if p.label == "weight"] == ["fc"]

    def test_a_class_that_is_not_there_changes_nothing(self):
        assert not report_of(perceptron(), QuantConfig(skip=[nn.Conv2d])).not_quantized

    @pytest.mark.parametrize(
        ("selector", "message"),
        [
            (
                "third",
                "selects 'third', which matches no module of the transformed model. Paths begin with first, second",
            ),
            ("secnd", "selects 'secnd', which matches no module of the transformed model. Near it: 'second'."),
            ("x.first", "selects 'x.first', which matches no module of the transformed model. Near it: 'first'."),
            ("", "selects '', which matches no module"),
            ("*.conv", "selects '*.conv', which matches no module"),
            (nn.Linear(1, 1), "selects a Linear that is not in the transformed model"),
        ],
        ids=["path", "slip", "end", "nothing", "glob", "module"],
    )
    def test_a_path_or_module_that_is_not_there_is_an_error(self, selector, message):
        configs = [
            QuantConfig(skip=[selector]),
            QuantConfig(skip=ModulesToSkip(smooth=[selector])),
            QuantConfig(overrides={selector: None}),
        ]
        for config in configs:
            with pytest.raises(QuantizationConfigError, match=re.escape(message)):
                report_of(perceptron(), config)


class TestOverrides:
    def test_give_modules_formats_of_their_own(self):
        config = QuantConfig(overrides={"second": LayerQuantConfig(INT16, INT4)})
        assert rules(report_of(perceptron(), config)) == {
            "first input 0": "INT8 minmax",
            "first weight": "INT8 per channel minmax",
            "second input 0": "INT16 minmax",
            "second weight": "INT4 blocks of 4 minmax",
        }

    def test_the_last_that_fits_wins(self):
        formats = LayerQuantConfig(INT16, PER_CHANNEL)
        for order, precision in [(("*", nn.Linear), "INT8"), ((nn.Linear, "*"), "INT16")]:
            overrides = {s: formats if s == "*" else LayerQuantConfig(INT8, PER_CHANNEL) for s in order}
            report = report_of(perceptron(), QuantConfig(overrides=overrides))
            assert {p.config.split()[0] for p in report.points if p.label == "input 0"} == {precision}
            last = "'*'" if order[-1] == "*" else "Linear"
            assert {p.rule for p in report.points} == {f"override for {last}"}

    def test_none_leaves_a_module_in_float(self):
        report = report_of(perceptron(), QuantConfig(overrides={"first": None}))
        assert rules(report)["first input 0"] == "override for 'first': activations in float"
        assert rules(report)["first weight"] == "override for 'first': weights in float"
        assert len(report.quantized) == 2

    def test_halves(self):
        config = QuantConfig(overrides={"first": LayerQuantConfig(None, INT4), "second": LayerQuantConfig(INT16, None)})
        assert rules(report_of(perceptron(), config)) == {
            "first input 0": "override for 'first': activations in float",
            "first weight": "INT4 blocks of 4 minmax",
            "second input 0": "INT16 minmax",
            "second weight": "override for 'second': weights in float",
        }

    def test_the_plain_configuration_may_be_half_too(self):
        assert rules(report_of(perceptron(), QuantConfig(activation=None)))["first input 0"] == (
            "configuration: activations in float"
        )
        assert rules(report_of(perceptron(), QuantConfig(weight=None)))["first weight"] == (
            "configuration: weights in float"
        )

    def test_skip_wins_over_overrides_and_overrides_over_the_policy(self):
        config = QuantConfig(
            skip=["first"],
            overrides={"*": LayerQuantConfig(INT16, PER_CHANNEL)},
            policy=lambda point: "never",
        )
        report = report_of(perceptron(), config)
        assert skipped(report, "first") == "skip: 'first'"
        assert {p.rule for p in report.quantized} == {"override for '*'"}

    def test_blocks_are_for_matrix_products(self):
        report = report_of(residual_block(), QuantConfig(weight=INT4))
        assert rules(report)["conv1 weight"] == "scales in blocks are for matrix products, not for Conv2d"
        assert rules(report)["fc weight"] == "INT4 blocks of 4 minmax"


class TestPolicies:
    def test_a_function(self):
        asked = []

        def only_weights(point):
            asked.append(str(point))
            return None if point.kind is PointKind.WEIGHT else "weights will do"

        report = report_of(perceptron(), QuantConfig(policy=only_weights))
        assert asked == ["first input 0", "first weight", "second input 0", "second weight"]
        assert rules(report)["first input 0"] == "policy only_weights: weights will do"
        assert [p.label for p in report.quantized] == ["weight", "weight"]
        assert {p.rule for p in report.quantized} == {"configuration"}
        assert report.policy == "only_weights"

    def test_sees_what_the_point_is(self):
        seen = {}

        def look(point):
            seen[str(point)] = (point.kind, point.index, point.pattern, type(point.module).__name__, point.node.name)

        report_of(residual_block(), QuantConfig(policy=look))
        assert seen["conv2 input 1"] == (PointKind.INPUT, 1, "ConvAddActPattern", "QConvAdd", "conv2_1")
        assert seen["pool output"] == (PointKind.OUTPUT, 0, "PoolPattern", "QPool", "pool_1")
        assert seen["fc weight"] == (PointKind.WEIGHT, 0, "LinearPattern", "QLinear", "fc_1")

    def test_none_by_default_for_a_list_of_patterns(self):
        assert report_of(perceptron(), None).policy == "none"

    def test_a_name_without_a_backend(self):
        with pytest.raises(QuantizationConfigError, match=r"policy='mixed' names a backend's policy.*backend=\.\.\."):
            report_of(perceptron(), QuantConfig(policy="mixed"))

    def test_a_backend_that_is_not_installed(self):
        with pytest.raises(BackendNotFoundError, match="acme"):
            report_of(perceptron(), QuantConfig(backend="acme"))

    @pytest.mark.parametrize("error", [KeyError, SystemExit])
    def test_one_that_raises(self, error):
        def broken(point):
            raise error(point.label)

        with pytest.raises(
            QuantizationError, match=rf"Policy broken fails at first input 0: {error.__name__}: '?input 0"
        ):
            report_of(perceptron(), QuantConfig(policy=broken))

    @pytest.mark.parametrize("answer", [True, False, 0, PointKind.INPUT], ids=str)
    def test_one_that_returns_no_reason(self, answer):
        with pytest.raises(
            QuantizationError, match=r"returned .* at first input 0; expected a reason in words, or None"
        ):
            report_of(perceptron(), QuantConfig(policy=lambda point: answer))


class TestInnerPoints:
    model = staticmethod(lambda: net(lambda self, x: self.act(x), act=nn.Sigmoid()))

    def test_follow_the_inputs(self):
        report = report_of(self.model(), None)
        assert [p.label for p in report.quantized] == ["input 0", "gate_quant"]
        report = report_of(self.model(), QuantConfig(policy=lambda p: "no" if p.kind is PointKind.INPUT else None))
        assert rules(report)["act gate_quant"] == "no input of the module is quantized"

    def test_may_be_refused_alone(self):
        report = report_of(self.model(), QuantConfig(policy=lambda p: "no" if p.kind is PointKind.INNER else None))
        assert [p.label for p in report.quantized] == ["input 0"]
