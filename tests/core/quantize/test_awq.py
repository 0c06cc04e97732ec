"""Activation-aware scaling and clipping: the formulas, what is left alone, and what both gain."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import InputError, QuantizationConfigError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.modules import ChannelScale
from embedl_deploy.quantize import (
    AwqConfig,
    ModulesToSkip,
    Precision,
    QuantConfig,
    QuantizationRecipe,
    TensorQuantConfig,
    freeze,
    quantization_recipe,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.accuracy.awq import AWQ, awq_scale, best_awq_scale, scale_weights
from embedl_deploy.quantize.accuracy.clipping import CLIPPING, input_moments
from embedl_deploy.quantize.accuracy.group_statistics import measured_groups
from embedl_deploy.quantize.accuracy.migration import ChannelStatistics
from embedl_deploy.quantize.accuracy.product_groups import InputsAre
from embedl_deploy.quantize.grid.operators import fake_quantize
from embedl_deploy.quantize.grid.scales import grid_of_weight
from embedl_deploy.quantize.grid.weight_search import InputMoments
from embedl_deploy.quantize.placing.placement import decide_for
from embedl_deploy.quantize.reporting.corrections import WhyNotCorrected
from support.nets import net, random_input

INT4 = TensorQuantConfig(Precision.INT4, block_size=8)
WEIGHTS = QuantConfig(activation=None, weight=INT4)
#: Channels of an input that matter more than others.
LARGE = torch.ones(16)
LARGE[[3, 9]] = torch.tensor([20.0, 8.0])
DATA = [random_input(8, 5, 16, seed=seed) for seed in range(12)]
HELD_OUT = random_input(64, 5, 16, seed=100)


def gated(self, x):
    y = self.norm(x)
    return self.c(F.silu(self.a(y)) * self.b(y))


def made(forward=gated):
    torch.manual_seed(0)
    layers = {"norm": nn.RMSNorm(16), "a": nn.Linear(16, 32), "b": nn.Linear(16, 32), "c": nn.Linear(32, 16)}
    model = net(forward, **layers).eval()
    with torch.no_grad():
        model.norm.weight.copy_(LARGE)
    return model


def transformed(forward=gated):
    return transform(made(forward), DATA[0], backend="tensorrt")


def error(result, config=WEIGHTS, **methods):
    """Squared error of the outputs on other data, relative to the outputs."""
    wanted = result.model(HELD_OUT).detach()
    found = quantize(result, DATA, config, progress=False, **methods).eval()(HELD_OUT).detach()
    return float((found - wanted).square().sum() / wanted.square().sum())


def corrections(model, what):
    return {c.where: c for c in quantization_report(model).corrections if c.what == what}


class TestScale:
    def statistics(self, x):
        found = ChannelStatistics.empty(x)
        found.add(x)
        return found

    def test_by_hand(self):
        x = torch.tensor([[1.0, 4.0, 0.0], [-1.0, -4.0, 0.0]])  # root mean squares of 1, 4 and 0
        assert awq_scale(self.statistics(x), 0.0).tolist() == [1.0, 1.0, 1.0]
        assert awq_scale(self.statistics(x), 0.5).tolist() == pytest.approx([1 / 2**0.5, 2**0.5, 1.0])
        assert awq_scale(self.statistics(x), 1.0).tolist() == pytest.approx([0.5, 2.0, 1.0])
        assert awq_scale(self.statistics(torch.zeros(2, 3)), 0.7).tolist() == [1.0, 1.0, 1.0]

    def test_the_best_has_the_least_error_of_all_that_are_tried(self):
        layer = nn.Linear(16, 24)
        statistics = self.statistics(HELD_OUT * LARGE)
        squares = (HELD_OUT * LARGE).flatten(0, -2).square().mean(0)

        def expected(scale):
            scaled = (layer.weight * scale).detach()
            grid = grid_of_weight(scaled, INT4)
            rounded = fake_quantize(scaled, grid.scale, None, -1, 8, "int4")
            return float((((rounded - scaled) / scale).square() * squares).sum())

        best = best_awq_scale(statistics, [(layer, INT4)])
        tried = [expected(awq_scale(statistics, alpha / 20)) for alpha in range(21)]
        assert expected(best) == pytest.approx(min(tried), rel=1e-4)
        assert min(tried) < 0.8 * tried[0]

    def test_nothing_is_scaled_if_nothing_is_gained(self):
        layer = nn.Linear(16, 8)
        with torch.no_grad():
            layer.weight.sign_()  # exact already
        assert best_awq_scale(self.statistics(HELD_OUT * LARGE), [(layer, INT4)]) is None


@pytest.mark.parametrize("alpha", [None, 0.3, 1.0])
def test_float_outputs_stay_and_divisions_are_folded(alpha):
    result = transformed()
    model = deep_copy(result.model)
    decisions, _ = decide_for(result.model, result.matches, WEIGHTS)
    groups, _ = measured_groups(model, decisions, DATA, (), [InputsAre.FLOAT], progress=False)
    done = scale_weights(model, groups, AwqConfig(alpha))
    assert {each.told().where: each.told().outcome for each in done} == {
        "norm_1": "folded into norm",
        "mul": "folded into b",
    }
    assert measured_groups(result.model, decisions, DATA, progress=False)[0] == []  # none has a quantized input
    torch.testing.assert_close(model(HELD_OUT), result.model(HELD_OUT), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_folded_is_an_operator_or_left_alone():
    def forward(self, x):
        y = self.norm(x)
        return F.gelu(self.a(y)).mean(-1, keepdim=True) + y  # others read it, too

    result = transformed(forward)
    explicit, folded = (
        quantize(result, DATA, WEIGHTS, awq=AwqConfig(0.5, explicit=way), progress=False) for way in (True, False)
    )
    count = [sum(isinstance(part, ChannelScale) for part in model.modules()) for model in (explicit, folded)]
    assert count == [1, 0]
    assert corrections(folded, AWQ)["norm_1"].cause.value == "cannot_be_folded"


def test_each_part_gains_and_all_together_most():
    result = transformed()
    plain = error(result)
    scaled, clipped = (error(result, awq=way) for way in (AwqConfig(clip=False), AwqConfig(alpha=0.0)))
    both, learned = error(result, awq=True), error(result, awq=True, learned_rounding=True)
    assert max(scaled, clipped) < 0.9 * plain
    assert both < min(scaled, clipped)
    assert learned < both


@pytest.mark.parametrize("precision", [Precision.NVFP4, Precision.MXFP4])
def test_formats_whose_scales_have_a_format(precision):
    result, config = transformed(), QuantConfig(None, TensorQuantConfig(precision))
    assert error(result, config, awq=True) < 0.95 * error(result, config)
    quantized = quantize(result, DATA, config, awq=True, progress=False)
    assert torch.equal(freeze(quantized)(HELD_OUT), quantized.eval()(HELD_OUT))


def test_products_with_quantized_inputs_are_smoothed_and_not_scaled():
    result = transformed()
    quantized = quantize(result, DATA, QuantConfig(), awq=AwqConfig(clip=False), progress=False)
    assert corrections(quantized, AWQ) == {}
    config = QuantConfig(overrides={"c": None, "b": None})
    quantized = quantize(result, DATA, config, smooth_quant=True, awq=AwqConfig(clip=False), progress=False)
    assert corrections(quantized, AWQ) == {}


class TestClipping:
    def test_a_range_is_the_one_with_the_least_expected_error(self):
        weight = random_input(3, 8)
        mean, variance = random_input(8, seed=2), random_input(8, seed=3).abs() * 10
        grid = grid_of_weight(weight, INT4, InputMoments(mean, variance))
        for row in range(3):
            errors = {}
            for share in torch.linspace(1.0, 0.2, 81, dtype=torch.float64).tolist():
                step = (weight[row].abs().max() * share).double() / 7
                missed = (weight[row].double() / step).round().clamp(-8, 7) * step - weight[row]
                errors[float(step)] = float((missed.square() * variance).sum() + (missed * mean).sum().square())
            assert float(grid.scale[row, 0]) == pytest.approx(min(errors, key=errors.get), rel=1e-5)

    def test_moments_of_inputs(self):
        x = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[[5.0, 0.0]]])]
        found = input_moments(x)
        assert found.mean.tolist() == [3.0, 2.0]
        assert found.variance.tolist() == pytest.approx([8 / 3, 8 / 3])

    def test_what_is_said_of_it(self):
        done = corrections(quantize(transformed(), DATA, WEIGHTS, awq=True, progress=False), CLIPPING)
        assert set(done) == {"a", "b", "c", ""}
        assert all("ranges" in done[path].outcome and done[path].cause is None for path in "abc")
        assert "held back" in done[""].outcome

    def test_a_convolution_is_told_of(self):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)).eval()
        data = [random_input(4, 3, 4, 4, seed=seed) for seed in range(8)]
        result = transform(model, data[0], backend="tensorrt")
        config = QuantConfig(None, TensorQuantConfig(Precision.INT4, per_channel=True))
        done = corrections(quantize(result, data, config, awq=True, progress=False), CLIPPING)
        assert done["0"].cause.value == "no_product" and "not of Conv2d" in done["0"].outcome
        assert "3" in done and done["3"].cause is not WhyNotCorrected.NO_PRODUCT


def test_exceptions_of_smoothing_are_exceptions():
    config = QuantConfig(None, INT4, skip=ModulesToSkip(smooth={"norm"}))
    done = corrections(quantize(transformed(), DATA, config, awq=True, progress=False), AWQ)
    assert done["norm_1"].cause.value == "skipped"
    assert done["mul"].cause is not WhyNotCorrected.SKIPPED


def test_a_recipe_a_state_and_a_file(tmp_path):
    result = transformed()
    quantized = quantize(result, DATA, WEIGHTS, awq=True, learned_rounding=True, progress=False).eval()
    rebuilt = QuantizationRecipe.from_json(quantization_recipe(quantized).to_json()).rebuild(transformed())
    rebuilt.load_state_dict(quantized.state_dict())
    assert torch.equal(rebuilt.eval()(HELD_OUT), quantized(HELD_OUT))
    exported = export_onnx(quantized, HELD_OUT, tmp_path / "m.onnx", integer_weights=True)
    assert exported.sqnr > 60


def test_the_transformed_model_is_not_changed():
    result = transformed()
    before = {name: tensor.clone() for name, tensor in result.model.state_dict().items()}
    quantize(result, DATA, WEIGHTS, awq=True, learned_rounding=True, progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in result.model.state_dict().items())


def test_data_is_needed_and_read_twice():
    with pytest.raises(InputError, match="awq needs calibration data"):
        quantize(transformed(), None, WEIGHTS, awq=True)
    with pytest.raises(InputError, match="awq reads the calibration data twice, but it is a generator"):
        quantize(transformed(), (x for x in DATA), WEIGHTS, awq=True)


@pytest.mark.parametrize("alpha", [-0.1, 1.5])
def test_wrong_strengths(alpha):
    with pytest.raises(QuantizationConfigError, match=r"AwqConfig: alpha is .*expected a number from 0 to 1"):
        AwqConfig(alpha)
