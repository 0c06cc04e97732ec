"""NVFP4, MXFP8 and MXFP4: the laws of rounding, the tables of their specifications, and torch's own casts."""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from embedl_deploy.quantize import (
    CalibrationMethod,
    IntegerWeight,
    Precision,
    QuantConfig,
    QuantizationRecipe,
    TensorQuantConfig,
    freeze,
    quantization_recipe,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.grid.block_scales import scales_as_stored, stored_scales
from embedl_deploy.quantize.grid.minifloat import round_to_float
from embedl_deploy.quantize.grid.operators import fake_quantize
from embedl_deploy.quantize.grid.scales import grid_of_weight
from support.nets import random_input
from support.quantizable import fused

IN_BLOCKS = [Precision.NVFP4, Precision.MXFP8, Precision.MXFP4]
MX = [Precision.MXFP8, Precision.MXFP4]
#: OCP Microscaling Formats (MX) Specification 1.0, section 5.3.3: what the eight codes without a sign stand for.
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
relaxed = settings(deadline=None, derandomize=True, max_examples=80)
values = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=70).map(lambda row: torch.tensor([row]))


def rounded(weight, precision, method=CalibrationMethod.MINMAX):
    """A weight that was rounded, and its grid."""
    config = TensorQuantConfig(precision, calibration_method=method)
    grid = grid_of_weight(weight, config)
    return fake_quantize(weight, grid.scale, None, -1, config.block_size, precision.value), grid


def in_blocks(x, size):
    """(blocks, values of each) of one row, padded with zeros."""
    return nn.functional.pad(x, (0, -x.shape[-1] % size)).reshape(-1, size)


class TestNumbers:
    def test_those_of_e2m1_are_the_specifications(self):
        both = torch.tensor([-x for x in E2M1] + E2M1)
        assert torch.equal(round_to_float(both, Precision.NVFP4), both)
        assert (Precision.MXFP4.high, Precision.MXFP4.smallest) == (max(E2M1), min(E2M1[1:]))

    def test_ties_go_to_the_number_whose_last_bit_is_zero(self):
        middles = torch.tensor([(a + b) / 2 for a, b in itertools.pairwise(E2M1)])
        assert round_to_float(middles, Precision.NVFP4).tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
        assert round_to_float(-middles, Precision.MXFP4).tolist() == [0.0, -1.0, -1.0, -2.0, -2.0, -4.0, -4.0]

    @relaxed
    @given(st.lists(st.floats(-6, 6, width=32), min_size=1, max_size=40))
    def test_e2m1_is_what_ml_dtypes_casts_to(self, row):
        wanted = np.array(row, np.float32).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
        assert round_to_float(torch.tensor(row), Precision.NVFP4).tolist() == wanted.tolist()

    @relaxed
    @given(st.lists(st.floats(-448, 448, width=32), min_size=1, max_size=40))
    def test_e4m3_is_torchs_cast(self, row):
        x = torch.tensor(row)
        assert torch.equal(round_to_float(x, Precision.MXFP8), x.to(torch.float8_e4m3fn).float())

    def test_every_number_of_e4m3_and_every_middle_by_the_rule_for_formats_that_torch_lacks(self, monkeypatch):
        numbers = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()  # the last is NaN
        x = torch.cat([numbers, (numbers[1:] + numbers[:-1]) / 2, numbers * 1.001])
        x = torch.cat([x, -x]).clamp(-448, 448)
        wanted = round_to_float(x, Precision.FP8)
        wide = Precision.FP8.format.__class__(**{**vars(Precision.FP8.format), "storage": torch.float32})
        monkeypatch.setattr(Precision.FP8, "format", wide)
        assert torch.equal(round_to_float(x, Precision.FP8), wanted)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_types_are_kept(self, dtype):
        x = (torch.arange(-60, 61) / 10).to(dtype)
        assert round_to_float(x, Precision.NVFP4).dtype is dtype
        wanted = x.float().numpy().astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
        assert round_to_float(x, Precision.NVFP4).float().tolist() == wanted.tolist()


class TestScales:
    @pytest.mark.parametrize("precision", MX)
    @relaxed
    @given(st.floats(2**-100, 2**100, width=32))
    def test_of_mx_formats_are_those_of_the_specification(self, precision, amax):
        exponent = math.floor(math.log2(amax)) if math.log2(amax) % 1 > 1e-6 else math.frexp(amax)[1] - 1
        largest = {Precision.MXFP8: 8, Precision.MXFP4: 2}[precision]  # table 1: emax of the elements
        _, grid = rounded(torch.tensor([[amax, -amax / 3]]), precision)
        assert grid.scale.tolist() == [[2.0 ** (exponent - largest)]]
        assert grid.tensor_scale is None

    @pytest.mark.parametrize(
        ("amax", "scale"),
        [
            (6.0, 1.0),
            (4.0, 1.0),
            (7.99, 1.0),
            (8.0, 2.0),
            (3.99, 0.5),
            (2.0**-125, 2.0**-127),
            (2.0**-126, 2.0**-127),
            (3e38, 2.0**125),
        ],
    )
    def test_of_mxfp4_at_the_edges(self, amax, scale):
        assert rounded(torch.tensor([[amax]]), Precision.MXFP4)[1].scale.item() == scale

    @pytest.mark.parametrize("precision", MX)
    @relaxed
    @given(values)
    def test_of_mx_formats_are_torchs_e8m0(self, precision, x):
        scale = rounded(x, precision)[1].scale
        assert torch.equal(scale.to(torch.float8_e8m0fnu).float(), scale)
        assert torch.equal(scales_as_stored(stored_scales(scale, precision, None), None), scale)

    @relaxed
    @given(values)
    def test_of_nvfp4_are_those_of_its_recipe(self, x):
        grid = rounded(x, Precision.NVFP4)[1]
        amax = in_blocks(x, 16).abs().amax(1).double()
        if float(amax.max()) == 0:
            assert float(grid.tensor_scale) == 1
            assert (grid.scale == 1).all()
            return
        assert float(grid.tensor_scale) == pytest.approx(float(amax.max()) / (448 * 6), rel=1e-6, abs=2.0**-126)
        wanted = (amax / 6 / grid.tensor_scale.double()).float().clamp(2.0**-9, 448).to(torch.float8_e4m3fn).float()
        wanted = torch.where(amax == 0, 1.0, wanted)
        assert torch.equal(grid.scale.flatten(), wanted * grid.tensor_scale)
        assert torch.equal(stored_scales(grid.scale, Precision.NVFP4, grid.tensor_scale).float().flatten(), wanted)

    @pytest.mark.parametrize("precision", IN_BLOCKS)
    def test_zeros_stay_zero(self, precision):
        weight = torch.cat([torch.zeros(2, 32), torch.full((1, 32), 0.3)])
        got, grid = rounded(weight, precision)
        assert grid.is_constant_zero and (grid.scale > 0).all()
        assert torch.equal(got[:2], weight[:2]) and (got[2] != 0).all()

    @pytest.mark.parametrize("precision", IN_BLOCKS)
    @pytest.mark.parametrize("seed", range(3))
    def test_the_search_never_loses(self, precision, seed):
        weight = random_input(8, 96, seed=seed)
        plain, searched = (
            (rounded(weight, precision, method)[0] - weight).square().sum()
            for method in (CalibrationMethod.MINMAX, CalibrationMethod.MSE)
        )
        assert searched < plain


class TestLaws:
    """Of a weight that is rounded with its own scales."""

    @pytest.mark.parametrize("precision", IN_BLOCKS)
    @relaxed
    @given(values)
    def test_rounding_twice_on_one_grid_is_rounding_once(self, precision, x):
        once, grid = rounded(x, precision)
        again = fake_quantize(once, grid.scale, None, -1, precision.format.block, precision.value)
        assert torch.equal(again, once)

    @pytest.mark.parametrize("precision", MX)
    @relaxed
    @given(values)
    def test_rounding_what_was_rounded_finds_the_same_grid(self, precision, x):
        once, grid = rounded(x, precision)
        again, second = rounded(once, precision)
        assert torch.equal(again, once)
        held = in_blocks(once, 32).abs().amax(1) > 0
        assert torch.equal(second.scale.flatten()[held], grid.scale.flatten()[held])

    @pytest.mark.parametrize("precision", IN_BLOCKS)
    @relaxed
    @given(values)
    def test_order_is_kept_within_a_block(self, precision, x):
        got, _ = rounded(x, precision)
        for before, after in zip(*(in_blocks(t, precision.format.block) for t in (x, got)), strict=True):
            assert (after[before.argsort()].diff() >= 0).all()

    @pytest.mark.parametrize("precision", IN_BLOCKS)
    @relaxed
    @given(values)
    def test_what_lies_beyond_becomes_the_end_and_the_rest_has_half_a_step(self, precision, x):
        got, grid = rounded(x, precision)
        size = precision.format.block
        ratio, number = (in_blocks(t, size).double() / grid.scale.reshape(-1, 1).double() for t in (x, got))
        assert (number.abs() <= precision.high * (1 + 1e-6)).all()
        beyond = ratio.abs() > precision.high
        torch.testing.assert_close(number[beyond].abs(), torch.full_like(number[beyond], precision.high))
        inside = ~beyond
        step = (2.0 ** (torch.frexp(ratio).exponent - 1 - precision.format.mantissa_bits)).clamp(min=precision.smallest)
        assert ((number - ratio).abs() <= step / 2 * (1 + 1e-5))[inside].all()

    @pytest.mark.parametrize("precision", MX)
    @relaxed
    @given(st.lists(st.sampled_from(E2M1), min_size=1, max_size=64), st.integers(-100, 100), st.booleans())
    def test_numbers_of_mx_formats_are_exact(self, precision, row, exponent, negative):
        x = torch.tensor([row]) * 2.0**exponent * (-1 if negative else 1)
        x[:, ::32] = 6.0 * 2.0**exponent  # the largest: the scale of each block is then that of the numbers
        assert torch.equal(rounded(x, precision)[0], x)

    @relaxed
    @given(
        st.lists(st.lists(st.sampled_from(E2M1), min_size=16, max_size=16), min_size=1, max_size=4),
        st.lists(st.sampled_from([1.0, 1.5, 208.0, 448.0, 0.125]), min_size=4, max_size=4),
    )
    def test_numbers_of_nvfp4_are_exact(self, blocks, scales):
        numbers = torch.tensor(blocks)
        numbers[:, 0] = 6.0
        scale = torch.tensor(scales[: len(blocks)])
        scale[0] = 448.0  # so that the scale of the tensor is 1
        x = (numbers * scale[:, None]).reshape(1, -1)
        got, grid = rounded(x, Precision.NVFP4)
        assert float(grid.tensor_scale) == 1.0 and grid.scale.flatten().tolist() == scale.tolist()
        assert torch.equal(got, x)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(70, 64), nn.ReLU(), nn.Linear(64, 48)).eval()


X = random_input(8, 70)


@pytest.fixture(params=IN_BLOCKS, scope="module")
def quantized(request):
    config = QuantConfig(activation=None, weight=TensorQuantConfig(request.param))
    return quantize(fused(mlp(), X), config=config)


class TestModels:
    def test_each_weight_has_scales_for_its_blocks_and_the_last_may_be_shorter(self, quantized):
        quantizer = quantized.get_submodule("0").weight_fake_quant.quantizer
        block = quantizer.config.block_size
        assert quantizer.scale.shape == (64, -(-70 // block))
        assert {p.config for p in quantization_report(quantized).quantized} == {str(quantizer.config)}
        wanted, _ = rounded(mlp()[0].weight.detach(), quantizer.config.precision)
        assert torch.equal(quantizer(mlp()[0].weight), wanted)

    def test_frozen_it_computes_the_same_and_stores_numbers_of_the_formats(self, quantized):
        frozen = freeze(quantized)
        assert torch.equal(frozen(X), quantized.eval()(X))
        stored = frozen.get_submodule("0").weight_fake_quant.quantizer
        assert isinstance(stored, IntegerWeight)
        assert stored.values.dtype is torch.float8_e4m3fn
        of_tensor = stored.precision is Precision.NVFP4
        assert stored.scale.dtype is (torch.float8_e4m3fn if of_tensor else torch.uint8)
        assert (stored.tensor_scale is not None) is of_tensor

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_numbers_and_scales_stay_when_the_model_is_converted(self, quantized, dtype):
        exact = [part() for part in freeze(quantized).modules() if isinstance(part, IntegerWeight)]
        for model in (freeze(quantized).to(dtype), freeze(freeze(quantized).to(dtype).float())):
            parts = [part for part in model.modules() if isinstance(part, IntegerWeight)]
            wanted = next(model.parameters()).dtype
            assert all(torch.equal(part(), weight.to(wanted)) for part, weight in zip(parts, exact, strict=True))
        narrow = fused(mlp(), X)
        same = quantize(
            narrow, config=QuantConfig(None, quantized.get_submodule("0").weight_fake_quant.quantizer.config)
        )
        same.to(dtype)
        assert same(X.to(dtype)).dtype is dtype
        assert same.get_submodule("0").weight_fake_quant.quantizer.scale.dtype is torch.float32

    @pytest.mark.parametrize("frozen", [False, True])
    def test_a_recipe_and_a_state_restore_it(self, quantized, frozen):
        model = freeze(quantized) if frozen else quantized
        recipe = QuantizationRecipe.from_json(quantization_recipe(model).to_json())
        rebuilt = recipe.rebuild(fused(mlp(), X))
        rebuilt.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(rebuilt.eval()(X), model.eval()(X))

    def test_rounding_is_learned(self, quantized):
        config = quantized.get_submodule("0").weight_fake_quant.quantizer.config
        data = [random_input(32, 70, seed=seed) for seed in range(8)]
        held_out = random_input(64, 70, seed=100)
        learned = quantize(fused(mlp(), X), data, QuantConfig(None, config), learned_rounding=True, progress=False)
        exact = mlp()(held_out).detach()
        errors = [float((model.eval()(held_out).detach() - exact).square().mean()) for model in (learned, quantized)]
        assert errors[0] < errors[1]
        stored = freeze(learned)
        assert torch.equal(stored(held_out), learned.eval()(held_out))

    def test_gradients_pass_within_the_range(self, quantized):
        precision = quantized.get_submodule("0").weight_fake_quant.quantizer.config.precision
        scale = torch.full((1, 1), 0.25)
        x = torch.tensor([[0.3, -0.9, precision.high * 0.25 * 1.2]], requires_grad=True)
        fake_quantize(x, scale, None, -1, precision.format.block, precision.value).sum().backward()
        assert x.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_a_convolution_stays_in_float():
    model = fused(
        nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8)).eval(), torch.randn(2, 16, 4, 4)
    )
    report = quantization_report(quantize(model, config=QuantConfig(None, TensorQuantConfig(Precision.NVFP4))))
    assert [point.path for point in report.quantized] == ["3"]
    (left,) = (point for point in report.not_quantized if point.label == "weight")
    assert left.cause.value == "blocks"
