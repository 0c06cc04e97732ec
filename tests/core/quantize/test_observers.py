"""What calibration remembers of a tensor."""

import pytest
import torch

from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize import CalibrationMethod, Precision, TensorQuantConfig
from embedl_deploy.quantize.grid.factory import make_observer
from embedl_deploy.quantize.grid.observers import in_memory_order
from embedl_deploy.quantize.grid.operators import fake_quantize
from support.nets import random_input

X = torch.cat([random_input(8, 32), torch.tensor([[40.0, -3.0] * 16])])
INDIFFERENT = [m for m in CalibrationMethod if m is not CalibrationMethod.MOVING_AVERAGE]


def configs():
    for method in INDIFFERENT:
        for precision in (Precision.INT8, Precision.FP8):
            for symmetric in (True, False):
                if precision.is_float and not symmetric:
                    continue
                if method is CalibrationMethod.ENTROPY and (precision.is_float or not symmetric):
                    continue
                yield TensorQuantConfig(precision, symmetric, calibration_method=method, percentile=97.0)


def grid(config, *batches, is_weight=False):
    observer = make_observer(config, "x", is_weight=is_weight)
    for batch in batches:
        observer.observe(batch)
    return observer.grid()


def same(a, b):
    return torch.equal(a.scale, b.scale) and a.zero_point == b.zero_point


class TestOrderAndSplitting:
    @pytest.mark.parametrize("config", list(configs()), ids=str)
    def test_do_not_matter(self, config):
        whole = grid(config, X)
        assert same(whole, grid(config, *X))
        assert same(whole, grid(config, *X.flip(0).split(2)))
        assert same(whole, grid(config, X.flip(1).T))
        assert same(whole, grid(config, X[:1] * 0, X)) or config.calibration_method is not CalibrationMethod.MINMAX

    @pytest.mark.parametrize("config", list(configs()), ids=str)
    def test_nor_does_the_layout_in_memory(self, config):
        images = random_input(2, 3, 5, 7)
        last = images.contiguous(memory_format=torch.channels_last)
        parts = images[:, :, 1:, ::2]  # does not lie side by side
        assert same(grid(config, images), grid(config, last))
        assert same(grid(config, parts), grid(config, parts.contiguous()))
        assert same(grid(config, images[:1].expand(4, -1, -1, -1)), grid(config, images[:1].repeat(4, 1, 1, 1)))

    def test_values_that_lie_side_by_side_are_not_copied(self):
        last = random_input(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
        found = in_memory_order(last)
        assert found.is_contiguous() and found.data_ptr() == last.data_ptr() and found.shape == (210,)

    def test_matter_to_a_moving_average_as_its_documentation_says(self):
        config = TensorQuantConfig(calibration_method=CalibrationMethod.MOVING_AVERAGE)
        assert not same(grid(config, *X), grid(config, *X.flip(0)))
        assert not same(grid(config, *X), grid(config, X))
        assert "depends on the order" in " ".join(CalibrationMethod.__doc__.split())


class TestRanges:
    def test_extremes(self):
        assert float(grid(TensorQuantConfig(), X).scale) == pytest.approx(40 / 127)
        asymmetric = grid(TensorQuantConfig(symmetric=False), torch.tensor([-1.0, 3.0]))
        assert float(asymmetric.scale) == pytest.approx(4 / 255)

    def test_a_moving_average_gives_a_new_batch_one_percent(self):
        config = TensorQuantConfig(calibration_method=CalibrationMethod.MOVING_AVERAGE)
        found = grid(config, torch.tensor([1.0]), torch.tensor([3.0]))
        assert float(found.scale) == pytest.approx((0.99 * 1 + 0.01 * 3) / 127)

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_a_percentile_leaves_the_rarest_out(self, symmetric):
        x = torch.arange(-1000.0, 1001) / 1000
        config = TensorQuantConfig(
            symmetric=symmetric, calibration_method=CalibrationMethod.PERCENTILE, percentile=90.0
        )
        wanted = 0.9 / 127 if symmetric else 1.8 / 255
        assert float(grid(config, x).scale) == pytest.approx(wanted, rel=3e-3)

    @pytest.mark.parametrize("symmetric", [True, False])
    def test_a_percentile_of_a_hundred_covers_everything(self, symmetric):
        config = TensorQuantConfig(symmetric=symmetric, calibration_method=CalibrationMethod.PERCENTILE, percentile=100)
        assert same(grid(config, X), grid(TensorQuantConfig(symmetric=symmetric), X))

    @pytest.mark.parametrize("precision", [Precision.INT8, Precision.FP8])
    def test_least_squares_has_a_smaller_error_than_extremes(self, precision):
        x = torch.cat([random_input(40000), torch.tensor([30.0])])
        errors = []
        for method in (CalibrationMethod.MINMAX, CalibrationMethod.MSE):
            scale = grid(TensorQuantConfig(precision, calibration_method=method), x).scale
            errors.append(float((fake_quantize(x, scale, None, -1, 0, precision.value) - x).square().sum()))
        assert errors[1] <= 1.01 * errors[0]  # by the histogram, whose bins are coarse for FP8
        if precision is Precision.INT8:
            assert errors[1] < 0.9 * errors[0]

    def test_entropy_cuts_a_lonely_outlier(self):
        x = torch.cat([random_input(20000), torch.tensor([50.0])])
        config = TensorQuantConfig(calibration_method=CalibrationMethod.ENTROPY)
        amax = float(grid(config, x).scale) * 127
        assert 1.5 < amax < 15

    def test_entropy_keeps_a_range_that_is_used_evenly(self):
        config = TensorQuantConfig(calibration_method=CalibrationMethod.ENTROPY)
        x = torch.linspace(-1, 1, 20000)
        assert float(grid(config, x).scale) * 127 == pytest.approx(1.0, rel=0.03)

    @pytest.mark.parametrize("method", CalibrationMethod)
    @pytest.mark.parametrize("x", [torch.zeros(9), torch.full((9,), 2.5), torch.full((9,), -1e-40)], ids=str)
    def test_constants(self, method, x):
        found = grid(TensorQuantConfig(calibration_method=method), x)
        assert torch.isfinite(found.scale) and found.scale > 0
        assert found.is_constant_zero is bool((x == 0).all())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("method", CalibrationMethod)
    def test_half_precision(self, method, dtype):
        x = X.to(dtype)
        config = TensorQuantConfig(calibration_method=method)
        assert same(grid(config, x), grid(config, x.float()))
        assert grid(config, x).scale.dtype == torch.float32


@pytest.mark.parametrize("method", CalibrationMethod)
def test_memory_does_not_grow(method):
    observer = make_observer(TensorQuantConfig(calibration_method=method), "x", is_weight=False)

    def held():
        values = [*vars(observer).values(), *vars(getattr(observer, "histogram", observer)).values()]
        return sum(value.numel() for value in values if isinstance(value, torch.Tensor))

    observer.observe(X)
    before = held()
    for seed in range(5):
        observer.observe(random_input(500, seed=seed) * 10**seed)
    assert held() == before
    assert observer.batches == 6


@pytest.mark.parametrize("method", CalibrationMethod)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named(method, bad):
    observer = make_observer(TensorQuantConfig(calibration_method=method), "the output of relu", is_weight=False)
    observer.observe(X)
    with pytest.raises(
        QuantizationError, match=r"the output of relu: 2 of 4 values in batch 2 are NaN or infinite"
    ) as caught:
        observer.observe(torch.tensor([1.0, bad, 2.0, bad]))
    assert caught.value.tensor == "the output of relu"


def test_an_empty_batch_is_none():
    observer = make_observer(TensorQuantConfig(), "x", is_weight=False)
    observer.observe(torch.zeros(0, 3))
    assert observer.batches == 0


def test_a_weight_is_looked_at_per_channel_and_once():
    config = TensorQuantConfig(per_channel=True)
    weight = random_input(3, 4)
    found = grid(config, weight, weight * 9, is_weight=True)
    torch.testing.assert_close(found.scale, weight.abs().amax(1) / 127)
