"""From what was seen of a tensor to its grid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedl_deploy.quantize import CalibrationMethod, Precision, TensorQuantConfig
from embedl_deploy.quantize.grid.operators import fake_quantize
from embedl_deploy.quantize.grid.scales import grid_from_range, grid_of_weight
from embedl_deploy.quantize.placing.quantizer import Quantizer
from support.nets import random_input

ends = st.floats(-1e4, 1e4, width=32)
relaxed = settings(deadline=None, derandomize=True, max_examples=60)


def rounded(x, grid, config):
    zero_point = (
        None if grid.zero_point is None else torch.tensor(grid.zero_point, dtype=config.precision.format.storage)
    )
    axis = (config.axis or 0) if config.per_channel else -1
    return fake_quantize(x, grid.scale, zero_point, axis, config.block_size or 0, config.precision.value)


#: With numbers on both sides of zero, and scales that are any number: see test_block_formats.py for the others.
SYMMETRIC = [p for p in Precision if not p.is_unsigned and not p.has_scale_format]


class TestRanges:
    @pytest.mark.parametrize("precision", SYMMETRIC)
    @relaxed
    @given(a=ends, b=ends)
    def test_the_largest_magnitude_becomes_the_largest_number(self, precision, a, b):
        grid = grid_from_range(min(a, b), max(a, b), TensorQuantConfig(precision))
        amax = max(abs(a), abs(b))
        assert grid.zero_point is None
        assert grid.is_constant_zero is (amax == 0)
        assert grid.scale.dtype == torch.float32 and grid.scale > 0
        assert float(grid.scale) == pytest.approx(amax / precision.high if amax else 1.0, rel=1e-6, abs=2**-126)

    @pytest.mark.parametrize("precision", [Precision.INT8, Precision.UINT8, Precision.INT16, Precision.INT4])
    @pytest.mark.parametrize("power_of_two", [False, True])
    @relaxed
    @given(a=ends, b=ends)
    def test_an_asymmetric_grid_covers_its_range_and_has_zero(self, precision, power_of_two, a, b):
        config = TensorQuantConfig(precision, symmetric=False, power_of_two=power_of_two)
        low, high = min(a, b), max(a, b)
        grid = grid_from_range(low, high, config)
        assert precision.low <= grid.zero_point <= precision.high
        x = torch.tensor([low, 0.0, high])
        got = rounded(x, grid, config)
        assert got[1] == 0
        assert ((got - x).abs() <= grid.scale * (1.001 if high > low else 0.501)).all()

    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("precision", [*SYMMETRIC, Precision.UINT8])
    @relaxed
    @given(a=ends, b=ends)
    def test_powers_of_two_cover_the_range(self, precision, symmetric, a, b):
        if (precision.is_float and not symmetric) or (precision.is_unsigned and symmetric):
            return
        config = TensorQuantConfig(precision, symmetric=symmetric, power_of_two=True)
        plain = TensorQuantConfig(precision, symmetric=symmetric)
        low, high = min(a, b), max(a, b)
        scale, smallest = (float(grid_from_range(low, high, c).scale) for c in (config, plain))
        assert torch.frexp(torch.tensor(scale)).mantissa == 0.5
        assert smallest * 0.999999 <= scale <= 2 * smallest

    def test_a_range_of_one_sign_still_has_zero(self):
        config = TensorQuantConfig(symmetric=False)
        assert grid_from_range(2.0, 4.0, config).zero_point == -128
        assert grid_from_range(-4.0, -2.0, config).zero_point == 127

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_nothing_but_zeros(self, symmetric):
        grid = grid_from_range(0.0, 0.0, TensorQuantConfig(symmetric=symmetric))
        assert (float(grid.scale), grid.zero_point or 0, grid.is_constant_zero) == (1.0, 0, True)

    @pytest.mark.parametrize("symmetric", [True, False])
    @pytest.mark.parametrize("power_of_two", [True, False])
    def test_the_smallest_numbers_have_a_normal_scale(self, symmetric, power_of_two):
        config = TensorQuantConfig(symmetric=symmetric, power_of_two=power_of_two)
        scale = grid_from_range(0.0, 1e-44, config).scale
        assert scale >= torch.finfo(torch.float32).tiny


class TestWeights:
    weight = random_input(6, 4, 3, 3) * torch.tensor([1e-3, 0.1, 1, 10, 5, 2]).reshape(-1, 1, 1, 1)

    def test_one_scale(self):
        grid = grid_of_weight(self.weight, TensorQuantConfig())
        torch.testing.assert_close(grid.scale, self.weight.abs().max() / 127)

    @pytest.mark.parametrize("axis", [None, 0, 1, 3])
    def test_one_scale_per_channel(self, axis):
        grid = grid_of_weight(self.weight, TensorQuantConfig(per_channel=True, axis=axis))
        wanted = self.weight.movedim(axis or 0, 0).flatten(1).abs().amax(1) / 127
        torch.testing.assert_close(grid.scale, wanted)

    def test_one_scale_per_block_of_the_last_axis(self):
        weight = random_input(3, 10)
        grid = grid_of_weight(weight, TensorQuantConfig(n_bits=4, block_size=4))
        assert grid.scale.shape == (3, 3)
        torch.testing.assert_close(grid.scale[1, 0], weight[1, :4].abs().max() / 7)
        torch.testing.assert_close(grid.scale[2, 2], weight[2, 8:].abs().max() / 7)

    def test_an_asymmetric_one(self):
        weight = random_input(3, 10).abs()
        config = TensorQuantConfig(symmetric=False)
        grid = grid_of_weight(weight, config)
        assert grid.zero_point == -128
        assert (rounded(weight, grid, config) - weight).abs().max() <= grid.scale * 0.51

    def test_a_channel_of_zeros_stays_zero(self):
        weight = self.weight.clone()
        weight[2] = 0
        config = TensorQuantConfig(per_channel=True)
        grid = grid_of_weight(weight, config)
        assert grid.is_constant_zero and grid.scale[2] == 1
        assert torch.isfinite(grid.scale).all()
        assert torch.equal(rounded(weight, grid, config)[2], torch.zeros(4, 3, 3))
        assert not grid_of_weight(self.weight, config).is_constant_zero

    @pytest.mark.parametrize("settings", [{"per_channel": True}, {}, {"block_size": 3}], ids=str)
    @pytest.mark.parametrize("precision", [Precision.INT4, Precision.INT8])
    def test_least_squares_is_nowhere_worse_than_extremes(self, settings, precision):
        weight = self.weight.reshape(6, 36)
        errors = []
        for method in (CalibrationMethod.MINMAX, CalibrationMethod.MSE):
            config = TensorQuantConfig(precision, calibration_method=method, **settings)
            errors.append((rounded(weight, grid_of_weight(weight, config), config) - weight).square())
        sums = [error.sum(1) if settings else error.sum() for error in errors]
        assert (sums[1] <= sums[0] * 1.0001).all()
        if precision is Precision.INT4:
            assert sums[1].sum() < sums[0].sum() * 0.99, "four bits gain by clipping"


@pytest.mark.parametrize("size", [5, 6, 2**31 - 1])
def test_a_block_larger_than_the_row_is_the_row(size):
    """And needs no memory of its own size."""
    weight = torch.randn(3, 5)
    config = TensorQuantConfig(Precision.INT4, block_size=size, learnable=True)
    quantizer = Quantizer(config, "weight", is_weight=True)
    quantizer.set_grid(grid_of_weight(weight, config))
    assert torch.equal(quantizer.scale, weight.abs().amax(1, keepdim=True) / 7)
    rows = TensorQuantConfig(Precision.INT4, per_channel=True)
    expected = fake_quantize(weight, quantizer.scale.detach().flatten(), None, 0, 0, rows.precision.value)
    assert torch.equal(quantizer(weight), expected)
    quantizer(weight).sum().backward()
    assert quantizer.scale.grad.shape == (3, 1)
