"""Activations in NVFP4 and MXFP8: scales of blocks that are those of each call."""

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from embedl_deploy.errors import InputError, QuantizationConfigError
from embedl_deploy.quantize import (
    CalibrationMethod,
    DynamicQuantizer,
    Precision,
    QuantConfig,
    QuantizationRecipe,
    Quantizer,
    TensorQuantConfig,
    calibrate,
    freeze,
    insert_qdq,
    quantization_recipe,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.accuracy.migration import ChannelStatistics, expected_error
from embedl_deploy.quantize.grid.call_blocks import fake_quantize_call
from support.nets import net, random_input
from support.quantizable import fused

FORMATS = [Precision.NVFP4, Precision.MXFP8]
relaxed = settings(deadline=None, derandomize=True, max_examples=50)


def rows(least=1e-3):
    """(blocks, 32) of both signs, none but zeros nearer to zero than ``least``."""
    numbers = st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0 or abs(x) >= least)
    row = st.lists(numbers, min_size=32, max_size=32)
    return st.lists(row, min_size=1, max_size=3).map(torch.tensor)


def rounded(x, precision, t=None):
    """An activation that was rounded; by the scale that it would be calibrated to, unless there is another."""
    block, of_tensor = precision.format.block, None
    if precision is Precision.NVFP4:
        of_tensor = (x.abs().max() / 2688).clamp(min=2.0**-126) if t is None else torch.tensor(t)
    return fake_quantize_call(x, of_tensor, block, precision.value)


def in_numpy(x, precision, t):
    """The same formulas, with the casts of ml_dtypes."""
    x = x.numpy().astype(np.float32)
    blocks = x.reshape(*x.shape[:-1], -1, precision.format.block)
    amax = np.abs(blocks).max(-1, keepdims=True)
    if precision is Precision.NVFP4:
        t = np.float32(t)
        scale = np.clip(amax / np.float32(6) / t, 2.0**-9, 448).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * t
        limit, kind = 6, ml_dtypes.float4_e2m1fn
    else:
        scale = np.float32(2) ** (np.frexp(amax)[1] - 1 - 8).astype(np.float32)
        limit, kind = 448, ml_dtypes.float8_e4m3fn
    scale = np.where(amax == 0, np.float32(1), scale)
    numbers = np.clip(blocks / scale, -limit, limit).astype(kind).astype(np.float32)
    return torch.from_numpy((numbers * scale).reshape(x.shape))


class TestNumbers:
    @pytest.mark.parametrize("precision", FORMATS)
    @relaxed
    @given(rows())
    def test_are_those_of_the_formulas_with_other_casts(self, precision, x):
        t = max(float(x.abs().max()) / 2688, 1e-6)
        assert torch.equal(rounded(x, precision, t), in_numpy(x, precision, t))

    def test_worked_out_by_hand(self):
        x = torch.tensor([[12.0, 5.2, -3.1, 0.4, *[0.0] * 12, 1.0, -0.3, 0.9, *[0.0] * 13]])
        # t = 1/16. First block: 12 / 6 · 16 = 32, a number of E4M3, so s = 2: 6, 2.6, -1.55, 0.2 → 6, 3, -1.5, 0.
        # Second: 1 / 6 · 16 = 2.67; E4M3 has 2.5 and 2.75, so s = 2.75 / 16 = 0.171875:
        # 5.82, -1.745, 5.24 → 6, -1.5, 6.
        got = rounded(x, Precision.NVFP4, 1 / 16)[0]
        assert got[:4].tolist() == [12.0, 6.0, -3.0, 0.0]
        assert got[16:19].tolist() == [6 * 0.171875, -1.5 * 0.171875, 6 * 0.171875]
        # MXFP8: 12 is in 8…16, so s = 2^(3 − 8) = 1/32: 384, 166.4, -99.2, 12.8, 32, -9.6, 28.8
        # E4M3 has steps of 32, 16, 8, 1, 4, 1, 2 there: 384, 160, -96 (as 99.2 is nearer to 96), 13, 32, -10, 28
        got = rounded(x, Precision.MXFP8)[0] * 32
        assert got[:4].tolist() == [384.0, 160.0, -96.0, 13.0]
        assert got[16:19].tolist() == [32.0, -10.0, 28.0]

    def test_ties_go_to_the_number_whose_last_bit_is_zero(self):
        middles = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0]
        x = torch.tensor([[6.0, *middles, *[-m for m in middles], 0.0]])
        wanted = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
        assert rounded(x, Precision.NVFP4, 1.0)[0].tolist() == [6.0, *wanted, *[-w for w in wanted], 0.0]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("precision", FORMATS)
    def test_narrow_types_are_widened_and_kept(self, precision, dtype):
        x = random_input(4, 64).to(dtype)
        got = rounded(x, precision, 0.001)
        assert got.dtype is dtype
        assert torch.equal(got, rounded(x.float(), precision, 0.001).to(dtype))


class TestLaws:
    @pytest.mark.parametrize("precision", FORMATS)
    @relaxed
    @given(rows(least=16.0))  # scales of blocks are normal numbers of E4M3, by the scale of the tensor
    def test_rounding_twice_is_rounding_once(self, precision, x):
        t = 1.0
        once = rounded(x, precision, t)
        assert torch.equal(rounded(once, precision, t), once)

    @pytest.mark.parametrize("precision", FORMATS)
    @relaxed
    @given(rows(), rows())
    def test_a_block_knows_nothing_of_others(self, precision, x, other):
        alone = rounded(x[:1], precision, 0.01)
        beside = torch.cat([other[:1], x[:1], other[:1]], dim=1)
        assert torch.equal(rounded(beside, precision, 0.01)[:, 32:64], alone)

    @pytest.mark.parametrize("precision", FORMATS)
    @relaxed
    @given(rows())
    def test_order_and_signs_are_kept_within_a_block(self, precision, x):
        got = rounded(x, precision)
        size = precision.format.block
        for before, after in zip(x.reshape(-1, size), got.reshape(-1, size), strict=True):
            assert (after[before.argsort()].diff() >= 0).all()
        assert torch.equal(rounded(-x, precision), -got)

    @relaxed
    @given(rows())
    def test_what_lies_beyond_the_calibrated_range_becomes_its_end(self, x):
        t = 1e-3
        got, end = rounded(x, Precision.NVFP4, t), 6 * (448 * torch.tensor(t))
        beyond = x.abs() >= end
        assert torch.equal(got[beyond], end.expand_as(x)[beyond] * x.sign()[beyond])
        assert (got.abs() <= end).all()

    @pytest.mark.parametrize("precision", FORMATS)
    def test_zeros_stay_zero(self, precision):
        x = torch.cat([torch.zeros(1, 64), random_input(1, 64)])
        got = rounded(x, precision)
        assert (got[0] == 0).all() and got[1].any() and got.isfinite().all()
        assert (rounded(torch.zeros(3, 32), precision) == 0).all()

    def test_gradients_pass_but_beyond_the_range(self):
        x = torch.tensor([[3.0, -2.0, 2687.0, 2689.0, *[0.0] * 28]], requires_grad=True)
        rounded(x, Precision.NVFP4, 1.0).sum().backward()
        assert x.grad[0, :5].tolist() == [1.0, 1.0, 1.0, 0.0, 1.0]
        x.grad = None
        rounded(x, Precision.MXFP8).sum().backward()
        assert (x.grad == 1).all()

    def test_it_stays_one_node_through_export(self):
        class Rounds(nn.Module):
            def forward(self, x):
                return rounded(x, Precision.MXFP8)

        x = random_input(2, 64)
        program = torch.export.export(Rounds(), (x,))
        calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
        assert calls == [torch.ops.embedl_deploy.fake_quantize_call.default]
        assert torch.equal(program.module()(x), rounded(x, Precision.MXFP8))


def both(precision):
    return QuantConfig(TensorQuantConfig(precision), TensorQuantConfig(precision))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32)).eval()


X = random_input(8, 64)
DATA = [random_input(8, 64, seed=seed) for seed in range(4)]


@pytest.fixture(params=FORMATS, scope="module")
def quantized(request):
    return quantize(fused(mlp(), X), DATA, both(request.param), progress=False).eval()


def precision_of(model):
    return next(point.format for point in quantization_report(model).quantized).precision


def activations_of(model):
    return [part for part in model.modules() if isinstance(part, DynamicQuantizer | Quantizer) and not weight(part)]


def weight(part):
    return isinstance(part, Quantizer) and part.is_weight


class TestModels:
    def test_inputs_of_products_are_rounded_by_the_scale_of_the_calibration_data(self, quantized):
        precision, model = precision_of(quantized), mlp()
        seen = torch.cat(DATA)
        hidden = model[1](model[0](seen)).detach()
        t = [float(x.abs().max()) / 2688 for x in (seen, hidden)]
        if precision is Precision.NVFP4:
            got = [float(part.scale) for part in activations_of(quantized)]
            assert got == pytest.approx(t, rel=1e-6)
        linears = [quantized.get_submodule(path) for path in ("0", "2")]
        weights = [layer.weight_fake_quant(layer.linear.weight) for layer in linears]
        x = in_numpy(X, precision, np.float32(t[0]))
        x = torch.relu(nn.functional.linear(x, weights[0], model[0].bias))
        x = in_numpy(x.detach(), precision, np.float32(t[1]))
        torch.testing.assert_close(quantized(X), nn.functional.linear(x, weights[1], model[2].bias))

    def test_frozen_it_computes_the_same(self, quantized):
        assert torch.equal(freeze(quantized)(X), quantized(X))

    def test_a_recipe_and_a_state_restore_it(self, quantized):
        for model in (quantized, freeze(quantized)):
            recipe = QuantizationRecipe.from_json(quantization_recipe(model).to_json())
            rebuilt = recipe.rebuild(fused(mlp(), X))
            rebuilt.load_state_dict(model.state_dict(), strict=True)
            assert torch.equal(rebuilt.eval()(X), model(X))

    def test_the_scale_of_a_tensor_stays_in_float32(self, quantized):
        narrow = freeze(quantized).half()
        assert all(part.scale.dtype is torch.float32 for part in activations_of(narrow) if isinstance(part, Quantizer))
        torch.testing.assert_close(narrow(X.half()).float(), quantized(X), rtol=0, atol=0.05)

    def test_the_state_of_another_format_is_refused(self, quantized):
        other = next(precision for precision in FORMATS if precision is not precision_of(quantized))
        model = insert_qdq(fused(mlp(), X).model, config=both(other))
        with pytest.raises(RuntimeError, match="the state is of"):
            model.load_state_dict(quantized.state_dict())

    def test_it_is_trained(self, quantized):
        model = quantize(fused(mlp(), X), DATA, both(precision_of(quantized)), progress=False).train()
        optimizer, losses = torch.optim.SGD(model.parameters(), 0.1), []
        for _ in range(8):
            optimizer.zero_grad()
            loss = (model(X) - 1).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < 0.6 * losses[0]

    @pytest.mark.parametrize("methods", [{"smooth_quant": True}, {"learned_rounding": True}, {"bias_correction": True}])
    def test_methods_for_accuracy_do_no_harm(self, quantized, methods):
        spread = torch.linspace(0.1, 4, 64)
        data = [batch * spread for batch in DATA]
        held_out = random_input(64, 64, seed=9) * spread
        wanted = mlp()(held_out).detach()
        config = both(precision_of(quantized))
        plain, better = (
            quantize(fused(mlp(), X), data, config, progress=False, **extra).eval() for extra in ({}, methods)
        )
        errors = [float((model(held_out).detach() - wanted).square().mean()) for model in (plain, better)]
        assert errors[1] < errors[0] * 1.05


@pytest.mark.parametrize("outlier", [1.0, 20.0])
def test_what_rounding_costs_is_known_beforehand_to_a_factor_of_two(outlier):
    """By which smoothing chooses its strengths."""
    spread = torch.ones(64)
    spread[::20] = outlier
    x, product = random_input(2048, 64) * spread, nn.Linear(64, 64, bias=False)
    product.weight.data = torch.eye(64)  # exact in any format
    statistics = ChannelStatistics.empty(x)
    statistics.add(x)
    formats = TensorQuantConfig(Precision.NVFP4), TensorQuantConfig(Precision.MXFP8)
    expected = expected_error(statistics, formats[0], [(product, formats[1])], torch.ones(64))
    found = float((rounded(x, Precision.NVFP4) - x).square().mean(0).sum())
    assert found / 2 < expected < 2 * found


class TestPlaces:
    def test_what_is_no_product_of_whole_blocks_stays_in_float_and_the_report_says_why(self):
        model = net(
            lambda m, x: m.last(torch.relu(m.odd(m.conv(x).flatten(2)))),
            conv=nn.Conv2d(16, 16, 3, padding=1),
            odd=nn.Linear(40, 48),
            last=nn.Linear(48, 8),
        )
        x = random_input(2, 16, 5, 8)
        report = quantization_report(quantize(fused(model, x), [x], both(Precision.NVFP4), progress=False))
        assert {f"{point.path} {point.label}" for point in report.quantized} == {
            *("odd weight", "last input 0", "last weight")
        }
        rules = {f"{point.path} {point.label}": point.rule for point in report.not_quantized}
        words = "scales in blocks are for rows of whole blocks: 40 values are no multiple of 16"
        assert rules["odd input 0"] == words
        assert rules["conv input 0"] == "scales in blocks are for matrix products, not for an input of QConv"

    def test_mx_scales_need_no_data_and_those_of_nvfp4_do(self):
        assert quantize(fused(mlp(), X), config=both(Precision.MXFP8))(X).isfinite().all()
        with pytest.raises(InputError, match="quantize needs calibration data"):
            quantize(fused(mlp(), X), config=both(Precision.NVFP4))
        model = insert_qdq(fused(mlp(), X).model, config=both(Precision.NVFP4))
        assert calibrate(model, [torch.zeros(2, 64)], progress=False)  # a tensor of zeros is told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": Precision.MXFP4}, "activation is MXFP4; MXFP4 is for weights: no compiler has an operator"),
        ({"precision": Precision.INT4}, "activation is INT4; INT4 is for weights. Use INT8, UINT8, INT16, FP8, NVFP4"),
        ({"calibration_method": CalibrationMethod.MSE}, "NVFP4 calibrated by MSE; scales of its blocks are those of"),
        ({"precision": Precision.INT8, "block_size": 16}, "activations have one scale per tensor, or are in a format"),
    ],
)
def test_settings_without_meaning_are_refused(settings, words):
    with pytest.raises(QuantizationConfigError, match=words):
        QuantConfig(activation=TensorQuantConfig(**{"precision": Precision.NVFP4, **settings}))


def test_scales_that_learn_are_refused():
    with pytest.raises(QuantizationConfigError, match="NVFP4 with learnable=True"):
        TensorQuantConfig(Precision.NVFP4, learnable=True)
