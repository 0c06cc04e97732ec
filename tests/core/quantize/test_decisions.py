"""Which rule decides whether a point is quantized, and that the report names it."""

import re
from collections import OrderedDict
from functools import cache

import pytest
import torch
from torch import fx, nn

from embedl_deploy import apply_transformation_plan, get_transformation_plan, load_transformation_plan, transform
from embedl_deploy.backend import PointKind
from embedl_deploy.errors import BackendNotFoundError, QuantizationConfigError, QuantizationError
from embedl_deploy.export.prepare import reasons_in_float
from embedl_deploy.modules import ConvertedModule
from embedl_deploy.patterns import Pattern
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


def secret(x):
    """A function that nobody knows."""
    return x.to(x.device) * torch.arange(2, device=x.device)


def squared(x):
    """Another."""
    return x @ x


def report_of_model(model):
    return quantization_report(insert_qdq(model)).uncovered


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
        message = r"selects 'blocks\.0\.act', which fits no module of the transformed model\. Near it: 'blocks\.0'"
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
            ("third", "selects 'third', which fits no module of the transformed model. Paths begin with first, second"),
            ("secnd", "selects 'secnd', which fits no module of the transformed model. Near it: 'second'."),
            ("x.first", "selects 'x.first', which fits no module of the transformed model. Near it: 'first'."),
            ("", "selects '', which fits no module"),
            ("*.conv", "selects '*.conv', which fits no module"),
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
        assert rules(report)["conv1 weight"] == "scales in blocks are for matrix products; this is a Conv2d"
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


class TestUncovered:
    """Operators that could be quantized, and where nothing offers to."""

    def uncovered(self, function, patterns=QUANTIZABLE, **modules):
        return report_of(net(function, **modules), None, patterns).uncovered

    @pytest.mark.parametrize(
        ("function", "kind"),
        [
            (lambda self, x: x @ x.transpose(-2, -1), "matmul"),
            (lambda self, x: torch.bmm(x, x), "bmm"),
            (lambda self, x: torch.einsum("bij,bjk->bik", x, x), "einsum"),
            (lambda self, x: torch.linalg.multi_dot([x, x, x]), "linalg_multi_dot"),
            (lambda self, x: torch.ops.aten.mm(x, x), "mm"),
            (lambda self, x: torch.sparse.mm(x, x), "_sparse_mm"),
            (lambda self, x: torch.cdist(x, x + 1), "cdist"),
            (lambda self, x: (x.unsqueeze(-1) * x.flip(0)).sum(1), "mul and sum"),
            (lambda self, x: x.addmv(x, x), "addmv"),
            (lambda self, x: nn.functional.cosine_similarity(x, x + 1), "CosineSimilarity"),
            (lambda self, x: torch.nn.functional.bilinear(x, x, x), "Bilinear"),
            (lambda self, x: torch.convolution(x, x, None, [1], [0], [1], False, [0], 1), "convolution"),
        ],
    )
    def test_products_of_tensors(self, function, kind):
        ((_, operator, reason),) = self.uncovered(function)
        computed = "its weight is computed from what flows in, so there is none to quantize beforehand"
        assert (operator, reason) == (
            kind,
            computed if kind in ("Bilinear", "convolution") else "no fusion has taken it",
        )

    @pytest.mark.parametrize(
        ("function", "kind"),
        [
            (lambda self, x: nn.functional.cosine_similarity(x, x + 1), "CosineSimilarity"),
            (lambda self, x: nn.functional.affine_grid(x.reshape(-1, 2, 3), [4, 1, 4, 4], False), "affine_grid"),
        ],
    )
    def test_what_multiplies_little_is_bound_by_memory(self, function, kind):
        result = transform(net(function), torch.ones(4, 6), patterns=QUANTIZABLE)
        ((_, operator, reason),) = quantization_report(insert_qdq(result.model, result.matches, None)).uncovered
        assert (operator, reason) == (
            kind,
            "it multiplies number by number and sums: it is bound by memory, not by arithmetic",
        )

    def test_a_product_of_positions_is_the_same_in_every_call(self):
        """Rotary angles: positions, one for each row, by frequencies that are kept."""

        def rotated(m, x):
            angles = torch.einsum("i,j->ij", torch.arange(x.shape[0]).type_as(m.table), m.table[0])
            return x * angles.cos()

        (told,) = self.uncovered(rotated, table=nn.Parameter(torch.ones(4, 4)))
        assert told[1:] == ("einsum", "what it computes is the same in every call, of parameters and sizes alone")

    def test_what_a_pattern_declined_is_told_with_its_reason(self):
        class Activated(Pattern):
            tree = (nn.Linear, nn.ReLU)
            graft = nn.Sequential

        found = self.uncovered(lambda self, x: (y := self.fc(x), torch.relu(y)), [Activated()], fc=nn.Linear(4, 4))
        assert found == (("fc", "Linear", "fc is an output of the model"),)

    def test_what_was_switched_off_is_told_as_the_plan_has_it(self):
        """The report, the file and why_not have one reason; a plan that came from JSON as well."""
        model, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), torch.ones(1, 4)
        plan = get_transformation_plan(model, x, patterns=QUANTIZABLE)
        (pattern,) = (name for name, match in plan.matches["_0"].items() if match.apply)
        assert plan.disable("_0", pattern) == []
        plan = load_transformation_plan(plan.to_json(), model, x, patterns=QUANTIZABLE)
        result = apply_transformation_plan(plan)
        quantized = insert_qdq(result.model)
        assert quantization_report(quantized).uncovered == (("_0", "Linear", "switched off in the plan"),)
        assert reasons_in_float(quantized) == {"0": "switched off in the plan"}
        assert any(line.endswith(": switched off in the plan") for line in result.report.why_not("_0"))

    def test_what_failed_is_told_with_its_error(self):
        class Breaking(Pattern):
            tree = (nn.Linear,)

            def replace(self, match):
                raise ValueError("no place for it")

        found = self.uncovered(lambda self, x: self.fc(x), [Breaking()], fc=nn.Linear(4, 4))
        assert found == (("fc", "Linear", "Breaking failed: ValueError: no place for it"),)

    def test_what_is_not_known(self):
        """Functions from outside torch, layers from outside torch with a weight, conversions that were not fused."""

        class Projection(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.ones(4, 4))

        class Scores(ConvertedModule):
            def forward(self, q, k):
                return torch.relu(q @ k.transpose(-2, -1))

        class Heads(ConvertedModule):
            def forward(self, x):
                return x.reshape(2, 2)

        graph = fx.Graph()
        x = graph.placeholder("x")
        scores = graph.call_module("scores", (graph.call_module("heads", (x,)), x))
        computed = graph.call_function(secret, (graph.call_module("projection", (scores,)),))
        graph.output(graph.call_function(OrderedDict, ([("y", computed)],)))  # which holds a value, and is known
        model = fx.GraphModule({"scores": Scores(), "heads": Heads(), "projection": Projection()}, graph)
        assert quantization_report(insert_qdq(model)).uncovered == (
            ("scores", "Scores", "no fusion has taken it, or none with places (it computes matmul)"),
            ("projection", "Projection", "it is from outside torch, and whether it multiplies is not known"),
            ("secret", "secret", "it is from outside torch, and whether it multiplies is not known"),
        )

    def test_running_a_function_tells_what_it_computes(self):
        """A function that torch.fx keeps whole, as libraries have them wrapped."""

        def uncovered(function):
            graph = fx.Graph()
            graph.output(graph.call_function(function, (graph.placeholder("x"),)))
            result = transform(fx.GraphModule({}, graph), torch.ones(2, 2), patterns=[])
            return report_of_model(result.model)

        assert uncovered(secret) == ()
        assert uncovered(squared) == (("squared", "squared", "no pattern knows it, and it computes mm"),)

    def test_weighted_modules_and_calls(self):
        def forward(self, x):
            return self.rnn(x)[0], self.up(x), torch.nn.functional.linear(x, self.up.weight[0])

        found = self.uncovered(forward, rnn=nn.LSTM(4, 4), up=nn.ConvTranspose1d(4, 4, 1))
        assert {(operator, reason) for _, operator, reason in found} == {
            ("LSTM", "no fusion has taken it"),
            ("ConvTranspose1d", "no fusion has taken it"),
            ("Linear", "no fusion has taken it"),
        }

    def test_a_module_that_opts_out(self):
        class OptsOut(QLinear):
            inputs_to_quantize = frozenset()

            def __init__(self, linear):
                super().__init__(linear)
                del self.weight_fake_quant

            def forward(self, x):
                return self.linear(x)

        class OptsOutPattern(Pattern):
            tree = (nn.Linear,)
            qdq_points = frozenset()
            graft = OptsOut

        found = self.uncovered(lambda self, x: self.fc(x), [OptsOutPattern()], fc=nn.Linear(4, 4))
        assert found == (
            ("fc_1", "OptsOut", "the module, or the pattern that placed it, declares no quantization point"),
        )

    def test_what_is_covered_and_what_has_no_weight_is_not_listed(self):
        assert (
            self.uncovered(
                lambda self, x: torch.relu(self.fc(self.norm(x))) * 2 + x.sum(),
                fc=nn.Linear(4, 4),
                norm=nn.LayerNorm(4),
            )
            == ()
        )

    def test_a_point_that_was_refused_is_not_uncovered(self):
        report = report_of(perceptron(), QuantConfig(skip=["*"]))
        assert report.uncovered == () and len(report.not_quantized) == 4
