"""Quantizers stand where they were decided to be, and nowhere else."""

import operator

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.modules import FusedModule, QuantStub
from embedl_deploy.patterns import Fork, Pattern, QDQPoint, get_module
from embedl_deploy.quantize import (
    LayerQuantConfig,
    Precision,
    QuantConfig,
    Quantizer,
    TensorQuantConfig,
    calibrate,
    insert_qdq,
    quantization_report,
)
from support.nets import net, scrambled
from support.quantizable import (
    IMAGES,
    ROWS,
    fused,
    inserted,
    perceptron,
    residual_block,
    same_state,
    scales_of,
    state_of,
)
from support.small_patterns import QUANTIZABLE, QConvAdd, QLinear

INT16 = TensorQuantConfig(Precision.INT16)
WEIGHT = TensorQuantConfig(per_channel=True)


def call_of(model, path):
    (node,) = model.graph.find_nodes(op="call_module", target=path)
    return node


def quantized_argument(node, index=0):
    """The quantizer in front of an argument, and the node whose value it reads; ``None`` if there is none."""
    argument = node.args[index]
    stub = node.graph.owning_module.get_submodule(argument.target) if argument.op == "call_module" else None
    return (stub.quantizer, argument.args[0].name) if isinstance(stub, QuantStub) else None


def sources(model, path):
    found = (quantized_argument(call_of(model, path), i) for i in range(len(call_of(model, path).args)))
    return [None if value is None else value[1] for value in found]


class TestSharing:
    def test_readers_with_the_same_format_share_a_stub(self):
        model = inserted(residual_block())
        assert call_of(model, "conv1").args[0] is call_of(model, "down").args[0]
        points = quantization_report(model).points
        stubs = {p.stub for p in points if p.path in ("conv1", "down") and p.label == "input 0"}
        assert stubs == {"x_quant"}

    def test_readers_with_different_formats_do_not(self):
        config = QuantConfig(overrides={"down": LayerQuantConfig(INT16, WEIGHT)})
        model = inserted(residual_block(), config)
        wide, source = quantized_argument(call_of(model, "down"))
        narrow, other_source = quantized_argument(call_of(model, "conv1"))
        assert (wide.config.precision, narrow.config.precision) == (Precision.INT16, Precision.INT8)
        assert source == other_source == "x"
        calibrate(model, [IMAGES])
        assert float(narrow.scale) == pytest.approx(float(IMAGES.abs().max()) / 127)
        assert float(wide.scale) == pytest.approx(float(IMAGES.abs().max()) / 32767)

    def test_a_reader_without_a_point_reads_the_exact_value(self):
        model = inserted(net(lambda self, x: self.fc(x) + x.sum(), fc=nn.Linear(12, 4)))
        calibrate(model, [ROWS])
        (total,) = [node for node in model.graph.nodes if node.name == "sum_1"]
        assert total.args[0].op == "placeholder"
        assert sources(model, "fc") == ["x"]

    def test_an_input_that_is_an_output_is_returned_exactly(self):
        model = inserted(net(lambda self, x: (self.fc(x), x), fc=nn.Linear(12, 4)))
        calibrate(model, [ROWS])
        assert torch.equal(model(ROWS)[1], ROWS)
        assert sources(model, "fc") == ["x"]

    def test_stubs_stand_behind_all_inputs(self):
        model = inserted(net(lambda self, x, y: self.a(x) + self.b(y), a=nn.Linear(12, 4), b=nn.Linear(12, 4)))
        assert [node.op for node in model.graph.nodes][:2] == ["placeholder", "placeholder"]
        model.graph.lint()
        calibrate(model, [(ROWS, ROWS * 3)])
        first, second = (quantized_argument(call_of(model, path))[0].scale for path in "ab")
        torch.testing.assert_close(second, first * 3)

    def test_names_that_are_taken_are_left_alone(self):
        model = net(lambda self, x: self.fc(self.x_quant(x)), fc=nn.Linear(12, 4), x_quant=nn.LayerNorm(12))
        result = transform(model, patterns=QUANTIZABLE)
        first = insert_qdq(result.model, result.matches)
        assert isinstance(first.get_submodule("x_quant"), nn.LayerNorm)
        calibrate(first, [ROWS])
        torch.testing.assert_close(first(ROWS), model(ROWS), rtol=0, atol=0.1)


class TestModulesCalledTwice:
    def test_one_quantizer_for_the_weight_and_one_for_each_input(self):
        model = inserted(net(lambda self, x: self.fc(self.fc(x)), fc=nn.Linear(12, 12)))
        first, second = (node for node in model.graph.nodes if isinstance(get_module(node), QLinear))
        assert quantized_argument(first)[1] == "x"
        assert quantized_argument(second)[1] == first.name
        assert len(scales_of(model)) == 3
        calibrate(model, [ROWS])
        assert all(torch.isfinite(scale).all() for scale in scales_of(model).values())

    def test_a_stub_inside_is_filled_once_and_sees_both(self):
        class Halved(FusedModule):
            """Its input is halved before it is quantized, so the stub stands inside."""

            inputs_to_quantize = frozenset({0})

            def __init__(self, gelu):
                super().__init__()
                self.gelu, self.inside = gelu, QuantStub()
                self.input_quant_stubs = {0: self.inside}

            def forward(self, x):
                return self.gelu(self.inside(x / 2))

        class HalvedPattern(Pattern):
            tree = (nn.GELU,)
            qdq_points = frozenset({QDQPoint.INPUT})
            graft = Halved

        result = transform(net(lambda self, x: self.act(self.act(x) + 9), act=nn.GELU()), patterns=[HalvedPattern()])
        model = insert_qdq(result.model, result.matches)
        assert len(scales_of(model)) == 1
        assert not any(node.target == "x_quant" for node in model.graph.nodes)
        assert {p.stub for p in quantization_report(model).points} == {"act_1.inside"}
        calibrate(model, [ROWS])
        wanted = (torch.nn.functional.gelu(ROWS / 2).max() + 9) / 2 / 127
        torch.testing.assert_close(scales_of(model)["act_1.inside.quantizer"], wanted)


class TestNarrowing:
    """A point is what the pattern and the module both declare."""

    def test_residual_inputs(self):
        assert sources(inserted(residual_block()), "conv2") == ["conv1_1", "down_1"]

    def test_a_pattern_without_the_residual_leaves_it_in_float(self):
        class OnlyInput(Pattern):
            tree = (Fork(operator.add, (nn.Conv2d, nn.BatchNorm2d), ()), nn.ReLU)
            qdq_points = frozenset({QDQPoint.INPUT})
            graft = QConvAdd

        result = transform(residual_block(), patterns=[OnlyInput()])
        model = insert_qdq(result.model, result.matches)
        (node,) = [n for n in model.graph.nodes if n.op == "call_module" and n.target.startswith("conv2")]
        assert quantized_argument(node, 0) is not None and quantized_argument(node, 1) is None
        unmatched = insert_qdq(result.model)
        assert len(quantization_report(unmatched).points) == len(quantization_report(model).points) + 1

    def test_a_pattern_without_points_quantizes_nothing(self):
        class NoPoints(Pattern):
            tree = (nn.Linear,)
            qdq_points = frozenset()
            graft = QLinear

        result = transform(perceptron(), patterns=[NoPoints()])
        assert quantization_report(insert_qdq(result.model, result.matches)).points == ()

    def test_a_module_that_opts_out_has_none(self):
        class OptsOut(QLinear):
            inputs_to_quantize = frozenset({0})

            def __init__(self, linear):
                super().__init__(linear)
                self.input_quant_stubs = {}
                self.weight_fake_quant = None

            def forward(self, x):
                return self.linear(x)

        class OptsOutPattern(Pattern):
            tree = (nn.Linear,)
            qdq_points = frozenset({QDQPoint.INPUT})
            graft = OptsOut

        result = transform(perceptron(), patterns=[OptsOutPattern()])
        assert quantization_report(insert_qdq(result.model, result.matches)).points == ()


class FusedGELU(FusedModule):
    inputs_to_quantize = frozenset({0})

    def __init__(self, gelu):
        super().__init__()
        self.gelu = gelu

    def forward(self, x):
        return self.gelu(x)


class SurroundGELU(Pattern):
    tree = (nn.GELU,)
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.OUTPUT})
    graft = FusedGELU


class PlainGELU(SurroundGELU):
    graft = nn.Sequential


class TestOutputs:
    @pytest.mark.parametrize("pattern", [SurroundGELU(), PlainGELU()], ids=["fused module", "any module"])
    def test_a_pattern_of_three_lines_puts_quantizers_on_both_sides(self, pattern):
        result = transform(net(lambda self, x: self.act(x), act=nn.GELU()), patterns=[pattern])
        model = insert_qdq(result.model, result.matches)
        assert [p.label for p in quantization_report(model).points] == ["input 0", "output"]
        calibrate(model, [ROWS])
        before, after = scales_of(model).values()
        rounded = torch.nn.functional.gelu((ROWS / before).round() * before)
        torch.testing.assert_close(model(ROWS), (rounded / after).round() * after)

    def test_every_reader_gets_the_quantized_output(self):
        def forward(self, x):
            y = self.act(x)
            return y, y.sum(), self.fc(y)

        result = transform(net(forward, act=nn.GELU(), fc=nn.Linear(12, 2)), patterns=[SurroundGELU(), *QUANTIZABLE])
        model = insert_qdq(result.model, result.matches)
        output = next(n for n in model.graph.nodes if n.name == "act_1")
        (stub,) = output.users
        assert {user.name for user in stub.users} == {"output", "sum_1", "fc_1"}

    def test_a_reader_with_another_format_reads_the_exact_output(self):
        result = transform(
            net(lambda self, x: self.fc(self.act(x)) + 1, act=nn.GELU(), fc=nn.Linear(12, 2)),
            patterns=[SurroundGELU(), *QUANTIZABLE],
        )
        config = QuantConfig(overrides={"fc": LayerQuantConfig(INT16, WEIGHT)})
        model = insert_qdq(result.model, result.matches, config)
        assert sources(model, "fc") == ["act_1"]
        assert quantized_argument(call_of(model, "fc"))[0].config == INT16

    def test_pooling(self):
        model = inserted(residual_block())
        assert sources(model, "pool") == ["conv2_1"]
        (flatten,) = [node for node in model.graph.nodes if node.name == "flatten"]
        assert quantized_argument(flatten)[1] == "pool_1"


class TestKnownRanges:
    model = staticmethod(lambda: scrambled(nn.Sequential(nn.Linear(12, 4), nn.Sigmoid())).eval())

    def gate(self, config=None):
        # LinearActPattern would take the sigmoid
        result = transform(self.model(), patterns=QUANTIZABLE[4:])
        model = insert_qdq(result.model, result.matches, config)
        (gate,) = [m.gate_quant for m in model.modules() if hasattr(m, "gate_quant")]
        return model, gate.quantizer

    @pytest.mark.parametrize(("precision", "high"), [(Precision.INT8, 127), (Precision.FP8, 448)])
    def test_are_fixed_without_calibration_and_by_it_unchanged(self, precision, high):
        model, gate = self.gate(QuantConfig(activation=TensorQuantConfig(precision)))
        assert float(gate.scale) == pytest.approx(1 / high)
        calibrate(model, [ROWS])
        assert float(gate.scale) == pytest.approx(1 / high)

    def test_follow_the_inputs_of_their_module(self):
        _, gate = self.gate(QuantConfig(overrides={"1": None}))
        assert gate is None


class TestTheUsersModel:
    @pytest.mark.parametrize("training", [False, True])
    def test_is_not_changed(self, training):
        result = fused(residual_block().train(training))
        result.model.get_submodule("conv1.bn").train(not training)
        state, code = state_of(result.model), result.model.code
        modes = [part.training for part in result.model.modules()]
        model = insert_qdq(result.model, result.matches)
        calibrate(model, [IMAGES])
        assert same_state(state, state_of(result.model)) and code == result.model.code
        assert modes == [part.training for part in result.model.modules()]
        assert not any(isinstance(part, Quantizer) for part in result.model.modules())
        assert not {p.data_ptr() for p in result.model.parameters()} & {p.data_ptr() for p in model.parameters()}
        copied = dict(model.named_modules())
        assert all(copied[path].training is part.training for path, part in result.model.named_modules())
        assert copied["x_quant"].training is training

    def test_without_quantizers_it_computes_the_same(self):
        result = fused(residual_block())
        model = insert_qdq(result.model, result.matches, QuantConfig(activation=None, weight=None))
        assert torch.equal(model(IMAGES), result.model(IMAGES))
        assert not quantization_report(model).quantized


class TestWrongArguments:
    def test_quantizers_are_inserted_once(self):
        model = inserted(perceptron())
        with pytest.raises(QuantizationError, match="has quantizers already"):
            insert_qdq(model)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"matches": {"fc": {"LinearPattern": 3}}}, "matches holds 3; expected result.matches"),
            ({"matches": {"fc": "LinearPattern"}}, "matches holds 'LinearPattern'"),
            ({"config": TensorQuantConfig()}, "config is an object of class TensorQuantConfig; expected a QuantConfig"),
        ],
        ids=["matches", "matches of one level", "config"],
    )
    def test_are_input_errors(self, arguments, message):
        with pytest.raises(InputError, match=message):
            insert_qdq(**{"model": fused(perceptron()).model, **arguments})

    def test_without_matches_the_modules_declarations_count(self):
        result = fused(residual_block())
        with_matches, without = (quantization_report(insert_qdq(result.model, m)) for m in (result.matches, None))
        labels = {(p.path, p.label) for p in with_matches.points}
        assert labels == {(p.path, p.label) for p in without.points} | {("pool", "output")}


OVERWRITTEN = {
    "a statement": lambda m, x: (y := m.a(x), y.relu_(), m.b(y))[2],
    "a module": lambda m, x: (y := m.a(x), m.act(y), m.b(y))[2],
    "through a view": lambda m, x: (y := m.a(x), y.view(-1).mul_(3.0), m.b(y))[2],
    "twice": lambda m, x: (y := m.a(x), y.relu_(), z := m.b(y), y.mul_(0.5), m.b(y) + z)[4],
    "read before and after": lambda m, x: (y := m.a(x), z := m.b(y), y.relu_(), m.b(y) + z)[3],
}


@pytest.mark.parametrize("forward", OVERWRITTEN.values(), ids=OVERWRITTEN)
def test_what_is_overwritten_in_place_is_quantized_as_its_reader_finds_it(forward):
    model = net(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8), act=nn.ReLU(inplace=True))
    x = torch.randn(16, 8)
    result = transform(model, x, patterns=QUANTIZABLE)
    quantized = insert_qdq(result.model, None, QuantConfig())
    calibrate(quantized, [x], progress=False)
    exact = model(x)
    assert (quantized(x) - exact).abs().max() < 0.05 * exact.abs().max()
