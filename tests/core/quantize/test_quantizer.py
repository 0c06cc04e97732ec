"""The module that stands in a stub, and the one that takes its place when it is frozen."""

import copy

import pytest
import torch
from torch import nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import IntegerWeight, Precision, QuantConfig, Quantizer, TensorQuantConfig, calibrate
from embedl_deploy.quantize.grid.factory import make_observer
from embedl_deploy.quantize.grid.scales import Grid, grid_from_range, grid_of_weight
from support.nets import random_input
from support.quantizable import IMAGES, ROWS, inserted, perceptron, residual_block

X = random_input(5, 8)
CONFIGS = [
    TensorQuantConfig(),
    TensorQuantConfig(Precision.INT16),
    TensorQuantConfig(Precision.FP8),
    TensorQuantConfig(symmetric=False),
    TensorQuantConfig(per_channel=True),
    TensorQuantConfig(per_channel=True, axis=1),
    TensorQuantConfig(n_bits=4, block_size=4),
    TensorQuantConfig(learnable=True),
    TensorQuantConfig(per_channel=True, learnable=True),
]


def quantizer_of(config, x=X):
    """Calibrated with ``x``, as a weight where it has several scales."""
    quantizer = Quantizer(config, "x", is_weight=not config.shares_one_scale)
    grid = (
        grid_from_range(float(x.min()), float(x.max()), config)
        if config.shares_one_scale
        else grid_of_weight(x, config)
    )
    quantizer.set_grid(grid)
    return quantizer


@pytest.mark.parametrize("config", CONFIGS, ids=str)
class TestEveryFormat:
    def test_rounds_to_within_half_a_step(self, config):
        quantizer = quantizer_of(config)
        assert quantizer.calibrated
        error = (quantizer(X) - X).abs().max()
        step = float(quantizer.scale.detach().max()) * (
            32 if config.precision.is_float else 1
        )  # between 256 and 448 it is 32
        assert 0 < error <= step * 0.5001

    def test_is_not_usable_before_calibration(self, config):
        quantizer = Quantizer(config, "the output of conv1")
        assert not quantizer.calibrated
        with pytest.raises(QuantizationError, match=r"the output of conv1 is not calibrated\. Run calibrate") as caught:
            quantizer(X)
        assert caught.value.tensor == "the output of conv1"

    def test_passes_on_what_it_observes(self, config):
        quantizer = quantizer_of(config)
        quantizer.observer = make_observer(config, "x", is_weight=quantizer.is_weight)
        assert quantizer(X) is X
        assert quantizer.observer.batches == 1

    def test_a_copy_is_its_own(self, config):
        quantizer = quantizer_of(config)
        copied = copy.deepcopy(quantizer)
        assert torch.equal(copied(X), quantizer(X))
        with torch.no_grad():
            copied.scale.mul_(3)
        assert not torch.equal(copied(X), quantizer(X))

    def test_integers_stand_for_the_same_values(self, config):
        quantizer = quantizer_of(config)
        weight = IntegerWeight(quantizer, X)
        assert weight.values.dtype == config.precision.format.storage
        assert weight.values.shape == X.shape
        assert torch.equal(weight(), quantizer(X))
        assert torch.equal(weight(None), weight(X * 7))
        low, high = weight.values.float().aminmax()
        assert config.precision.low <= low and high <= config.precision.high
        assert not list(weight.parameters())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16], ids=str)
    def test_integers_survive_conversion(self, config, dtype):
        weight = IntegerWeight(quantizer_of(config), X)
        values, wanted = weight.values.clone(), weight()
        converted = weight.to(dtype)
        assert converted.values.dtype == values.dtype
        assert torch.equal(converted.values.float(), values.float())
        assert converted().dtype == dtype
        accuracy = max(torch.finfo(kind).eps for kind in (dtype, torch.float32))
        torch.testing.assert_close(converted(), wanted.to(dtype), rtol=2 * accuracy, atol=0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16], ids=str)
    def test_takes_inputs_of_other_types(self, config, dtype):
        quantizer = quantizer_of(config)
        wanted = quantizer(X)
        for other in (quantizer, copy.deepcopy(quantizer).to(dtype)):
            got = other(X.to(dtype))
            assert got.dtype == dtype
            step = float(quantizer.scale.detach().max()) * (32 if config.precision.is_float else 1)
            assert (got.float() - wanted).abs().max() <= 1.01 * step + 0.01 * X.abs().max()

    def test_state_goes_into_an_uncalibrated_one(self, config):
        quantizer = quantizer_of(config)
        other = Quantizer(config, "x", is_weight=quantizer.is_weight)
        other.load_state_dict(quantizer.state_dict())
        assert other.calibrated
        assert torch.equal(other(X), quantizer(X))
        assert set(other.state_dict()) == ({"scale"} if config.symmetric else {"scale", "zero_point"})
        assert isinstance(other.scale, nn.Parameter) is config.learnable

    def test_the_state_of_an_uncalibrated_one_is_uncalibrated(self, config):
        quantizer = quantizer_of(config)
        quantizer.load_state_dict(Quantizer(config, "x").state_dict())
        assert not quantizer.calibrated
        with pytest.raises(QuantizationError, match="not calibrated"):
            quantizer(X)


def test_a_scale_that_is_not_finite_is_not_calibrated():
    quantizer = Quantizer(TensorQuantConfig(), "x")
    quantizer.set_grid(Grid(torch.tensor(float("inf"))))
    assert not quantizer.calibrated


def test_a_learned_scale_may_cross_zero():
    quantizer = quantizer_of(TensorQuantConfig(learnable=True))
    wanted = quantizer(X)
    with torch.no_grad():
        quantizer.scale.neg_()
    assert torch.equal(quantizer(X), wanted)
    assert torch.equal(IntegerWeight(quantizer, X)(), wanted)
    with torch.no_grad():
        quantizer.scale.zero_()
    assert torch.isfinite(quantizer(X)).all()


def test_the_axis_is_that_of_the_operator_or_the_one_that_was_asked_for():
    axes = [(c.per_channel, c.axis, c.scale_axis) for c in CONFIGS]
    assert set(axes) == {(False, None, -1), (True, None, 0), (True, 1, 1)}


class TestWholeModels:
    def test_use_before_calibration_names_the_tensor(self):
        with pytest.raises(QuantizationError, match="the output of x is not calibrated") as caught:
            inserted(perceptron())(ROWS)
        assert caught.value.tensor == "the output of x"

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
    def test_converted(self, dtype):
        model = inserted(residual_block())
        calibrate(model, [IMAGES])
        wanted = model(IMAGES).detach()
        got = copy.deepcopy(model).to(dtype)(IMAGES.to(dtype))
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), wanted, rtol=0, atol=0.05 * float(wanted.abs().max()))
        assert torch.equal(model(IMAGES), wanted)

    def test_calibrated_in_double(self):
        model = inserted(residual_block().double())
        calibrate(model, [IMAGES.double()])
        plain = inserted(residual_block())
        calibrate(plain, [IMAGES])
        assert model(IMAGES.double()).dtype == torch.float64
        torch.testing.assert_close(model(IMAGES.double()).float(), plain(IMAGES), rtol=0, atol=0.02)

    def test_autocast(self):
        model = inserted(perceptron(), QuantConfig(activation=TensorQuantConfig(symmetric=False)))
        calibrate(model, [ROWS])
        wanted = model(ROWS).detach()
        with torch.autocast("cpu", torch.bfloat16):
            got = model(ROWS)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), wanted, rtol=0, atol=0.05 * float(wanted.abs().max()))

    def test_a_copy_is_its_own(self):
        model = inserted(residual_block())
        calibrate(model, [IMAGES])
        wanted, copied = model(IMAGES), copy.deepcopy(model)
        assert torch.equal(copied(IMAGES), wanted)
        calibrate(copied, [IMAGES * 3])
        assert torch.equal(model(IMAGES), wanted) and not torch.equal(copied(IMAGES), wanted)
