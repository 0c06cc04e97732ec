"""Finding scales: what they are, what they do not depend on, and what is refused."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from embedl_deploy.errors import FusedModuleError, InputError, QuantizationError
from embedl_deploy.quantize import (
    CalibrationMethod,
    Precision,
    QuantConfig,
    Quantizer,
    TensorQuantConfig,
    calibrate,
)
from support.nets import net, random_input
from support.quantizable import (
    IMAGES,
    ROWS,
    fused,
    inserted,
    one_thread,
    perceptron,
    residual_block,
    same_state,
    scales_of,
    state_of,
)

INDIFFERENT = [method for method in CalibrationMethod if method is not CalibrationMethod.MOVING_AVERAGE]
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def activation(**settings):
    return QuantConfig(activation=TensorQuantConfig(**settings))


def calibrated(model, data, config=None):
    quantized = inserted(model, config)
    calibrate(quantized, data)
    return quantized


class TestScales:
    def test_are_the_extremes_of_what_flows_by_in_float(self):
        original = perceptron()
        scales = scales_of(calibrated(original, [ROWS]))
        hidden = torch.relu(original.first(ROWS))
        torch.testing.assert_close(scales["x_quant.quantizer"], ROWS.abs().max() / 127)
        torch.testing.assert_close(scales["first_1_quant.quantizer"], hidden.detach().max() / 127)
        wanted = original.second.weight.detach().abs().amax(1) / 127
        torch.testing.assert_close(scales["second.weight_fake_quant.quantizer"], wanted)

    def test_of_weights_are_those_of_the_folded_weights(self):
        original = residual_block()
        scales = scales_of(calibrated(original, [IMAGES]))
        factor = original.bn1.weight / (original.bn1.running_var + original.bn1.eps).sqrt()
        wanted = (original.conv1.weight * factor.reshape(-1, 1, 1, 1)).detach().abs().amax((1, 2, 3)) / 127
        torch.testing.assert_close(scales["conv1.weight_fake_quant.quantizer"], wanted)

    @pytest.mark.parametrize("method", CalibrationMethod)
    @pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
    def test_of_every_method_are_finite_positive_and_no_wider_than_the_extremes(self, method, precision):
        if method is CalibrationMethod.ENTROPY and precision is Precision.FP8:
            return
        scales = scales_of(
            calibrated(residual_block(), [IMAGES], activation(precision=precision, calibration_method=method))
        )
        widest = scales_of(calibrated(residual_block(), [IMAGES], activation(precision=precision)))
        for path, scale in scales.items():
            assert torch.isfinite(scale).all() and (scale > 0).all()
            assert (scale <= widest[path] * 1.000001).all()

    def test_asymmetric_ranges_have_a_zero_point(self):
        model = calibrated(perceptron(), [ROWS], activation(symmetric=False))
        quantizer = model.first_1_quant.quantizer
        assert (int(quantizer.zero_point), quantizer.zero_point.dtype) == (-128, torch.int8)
        hidden = torch.relu(perceptron().first(ROWS)).detach()
        torch.testing.assert_close(quantizer.scale, hidden.max() / 255)

    def test_powers_of_two(self):
        both = TensorQuantConfig(power_of_two=True)
        model = calibrated(residual_block(), [IMAGES], QuantConfig(activation=both, weight=both))
        assert all(torch.frexp(scale).mantissa == 0.5 for scale in scales_of(model).values())

    def test_calibrating_again_replaces_them(self):
        model = calibrated(perceptron(), [ROWS * 5])
        calibrate(model, [ROWS])
        wanted = scales_of(calibrated(perceptron(), [ROWS]))
        assert all(torch.equal(scale, wanted[path]) for path, scale in scales_of(model).items())


class TestInvariance:
    @pytest.mark.parametrize("method", INDIFFERENT)
    @settings(deadline=None, derandomize=True, max_examples=8)
    @given(order=st.permutations(range(12)), cuts=st.lists(st.integers(1, 11), max_size=4, unique=True))
    def test_scales_do_not_depend_on_batches_or_their_order(self, method, order, cuts):
        rows = torch.cat([random_input(9, 12), random_input(2, 12) * 5, torch.zeros(1, 12)])
        config = activation(calibration_method=method, percentile=97.0, symmetric=method is CalibrationMethod.ENTROPY)
        # Elementwise between the stubs: a matrix product may add in another order for another batch size.
        model = net(lambda self, x: self.b(self.a(x) * 2), a=nn.Sigmoid(), b=nn.Sigmoid())
        whole = state_of(calibrated(model, [rows], config))
        parts = state_of(calibrated(model, rows[order].tensor_split(sorted(cuts)), config))
        assert same_state(whole, parts)
        assert any(name.endswith("scale") for name in whole)

    @pytest.mark.parametrize("method", CalibrationMethod)
    def test_the_same_data_gives_the_same_scales(self, method):
        one, two = (
            state_of(calibrated(residual_block(), IMAGES.split(1), activation(calibration_method=method)))
            for _ in range(2)
        )
        assert same_state(one, two)


class TestZeros:
    def test_a_tensor_of_zeros_is_reported_and_stays_zero(self, caplog):
        model = inserted(perceptron())
        with caplog.at_level(logging.INFO):
            zeros = calibrate(model, [ROWS * 0])
        assert zeros == ["the output of x"]
        assert "the output of x" in caplog.text
        assert float(model.x_quant.quantizer.scale) == 1
        assert torch.equal(model.x_quant(ROWS * 0), ROWS * 0)
        assert torch.isfinite(model(ROWS * 0)).all()

    def test_a_channel_of_zeros(self):
        original = perceptron()
        with torch.no_grad():
            original.first.weight[3] = 0
        model = inserted(original)
        assert calibrate(model, [ROWS]) == ["first weight"]
        assert float(model.get_submodule("first").weight_fake_quant.quantizer.scale[3]) == 1
        torch.testing.assert_close(model(ROWS), original(ROWS), rtol=0, atol=0.1)

    @pytest.mark.parametrize("method", CalibrationMethod)
    def test_by_every_method(self, method):
        model = inserted(perceptron(), activation(calibration_method=method))
        assert calibrate(model, [ROWS * 0, ROWS * 0]) == ["the output of x"]
        assert float(model.x_quant.quantizer.scale) == 1

    def test_none_are_reported_where_there_are_none(self):
        assert calibrate(inserted(residual_block()), [IMAGES]) == []


def poisoned(value):
    rows = ROWS.clone()
    rows[2, 5] = value
    return rows


class TestRefused:
    """After each, the model is what it was before."""

    @pytest.fixture(params=[False, True], ids=["never calibrated", "calibrated before"])
    def model(self, request):
        model = inserted(perceptron())
        if request.param:
            calibrate(model, [ROWS])
        model.train()
        before = state_of(model)
        yield model
        assert same_state(before, state_of(model))
        assert all(part.training for part in model.modules())
        assert all(part.observer is None for part in model.modules() if isinstance(part, Quantizer))

    @pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY], ids=str)
    @pytest.mark.parametrize("before", [[], [ROWS]], ids=["first batch", "second batch"])
    def test_nan_and_infinity(self, model, value, before):
        with pytest.raises(QuantizationError) as caught:
            calibrate(model, [*before, poisoned(value)])
        assert caught.value.tensor == "the output of x"
        assert f"1 of 72 values in batch {len(before) + 1} are NaN or infinite" in str(caught.value)

    def test_an_overflow_within_the_model_names_the_tensor_behind_it(self, model):
        with pytest.raises(QuantizationError, match="NaN or infinite") as caught:
            calibrate(model, [model.get_parameter("first.linear.weight")[:1].sign() * 3e38])
        assert caught.value.tensor == "the output of first_1"

    @pytest.mark.parametrize("data", [[], (), iter([])], ids=["list", "tuple", "iterator"])
    def test_no_data(self, model, data):
        with pytest.raises(QuantizationError, match="The calibration data is empty"):
            calibrate(model, data)

    def test_empty_batches(self, model):
        with pytest.raises(InputError, match=r"Batch 1 of the calibration data cannot be used: .* hold no sample"):
            calibrate(model, [ROWS[:0]])

    def test_a_function_that_does_not_run_the_model(self, model):
        with pytest.raises(QuantizationError, match="did not run the model it was given"):
            calibrate(model, lambda _: perceptron()(ROWS))

    def test_a_function_that_runs_a_part(self, model):
        with pytest.raises(QuantizationError, match="never reached 3 of 4 tensors") as caught:
            calibrate(model, lambda whole: whole.get_submodule("first")(ROWS))
        for name in ("the output of x", "second weight", "the output of first_1"):
            assert name in str(caught.value)
        assert caught.value.tensor == "second weight"

    def test_a_function_that_fails(self, model):
        def fail(_):
            raise RuntimeError("no more disk")

        with pytest.raises(RuntimeError, match="no more disk"):
            calibrate(model, fail)

    def test_a_batch_that_does_not_fit(self, model):
        with pytest.raises((RuntimeError, FusedModuleError), match="cannot be multiplied"):
            calibrate(model, [ROWS, ROWS[:, :3]])


def test_a_weight_of_nan_is_named():
    original = perceptron()
    with torch.no_grad():
        original.second.weight[0, 0] = NAN
    model = inserted(original)
    with pytest.raises(QuantizationError, match="NaN") as caught:
        calibrate(model, [ROWS])
    assert caught.value.tensor == "second.linear.weight"


@pytest.mark.parametrize("model", [perceptron(), fused(perceptron()).model], ids=["module", "fused"])
def test_a_model_without_quantizers(model):
    with pytest.raises(QuantizationError, match=r"The model has no quantizers\. Put them in first"):
        calibrate(model, [ROWS])


class TestMode:
    def test_every_module_is_in_its_own_mode_afterwards(self):
        model = inserted(residual_block())
        model.train()
        model.get_submodule("conv1.bn").eval()
        modes = [part.training for part in model.modules()]
        statistics = {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}
        calibrate(model, [IMAGES])
        assert modes == [part.training for part in model.modules()] and True in modes and False in modes
        assert all(torch.equal(model.get_buffer(name), buffer) for name, buffer in statistics.items())

    def test_it_runs_in_evaluation_mode(self):
        seen = []

        def look(model):
            seen.append({part.training for part in model.modules()})
            model(IMAGES)

        trained, evaluated = inserted(residual_block().train()), inserted(residual_block())
        calibrate(trained, look)
        calibrate(evaluated, look)
        assert seen == [{False}, {False}]
        assert same_state(scales_of(trained), scales_of(evaluated))
