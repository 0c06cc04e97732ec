"""Rounding to a grid and coming back: laws, ONNX's reference, gradients."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from embedl_deploy.quantize import Precision
from embedl_deploy.quantize.grid.operators import dequantize, expand_scale, fake_quantize, quantize_values
from support.nets import random_input

INTEGERS = [Precision.INT4, Precision.INT8, Precision.INT16]
ONNX_TYPES = {
    Precision.INT8: TensorProto.INT8,
    Precision.INT16: TensorProto.INT16,
    Precision.FP8: TensorProto.FLOAT8E4M3FN,
}
#: Loading an operator takes longer than hypothesis grants by default.
relaxed = settings(deadline=None, derandomize=True, max_examples=60)
values = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=16).map(torch.tensor)
scales = st.floats(2**-10, 2**6, width=32).map(torch.tensor)


def fake(x, scale, precision, zero_point=None, axis=-1, block=0):
    return fake_quantize(x, scale, zero_point, axis, block, precision.value)


def rounded_by_onnx(x, scale, precision, zero_point=0, axis=None):
    """QuantizeLinear and DequantizeLinear by the reference implementation of onnx."""
    kind, settings = ONNX_TYPES[precision], {} if axis is None else {"axis": axis}
    shape = list(scale.shape)
    zeros = helper.make_tensor("z", kind, shape, np.full(shape, zero_point).reshape(-1).tolist())
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **settings),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], **settings),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(x.shape))],
        [onnx.numpy_helper.from_array(scale.numpy(), "s"), zeros],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return torch.from_numpy(np.asarray(ReferenceEvaluator(model).run(None, {"x": x.numpy()})[0]))


class TestLaws:
    @pytest.mark.parametrize("precision", Precision)
    @relaxed
    @given(x=values, scale=scales)
    def test_rounding_twice_is_rounding_once(self, precision, x, scale):
        once = fake(x, scale, precision)
        assert torch.equal(fake(once, scale, precision), once)

    @pytest.mark.parametrize("precision", INTEGERS)
    @relaxed
    @given(x=values, scale=scales)
    def test_no_error_is_over_half_a_step_within_the_range(self, precision, x, scale):
        x = x.clamp(float(scale) * precision.low, float(scale) * precision.high)
        error = (fake(x, scale, precision) - x).abs().double()
        rounding = x.abs().double() * 2 * torch.finfo(torch.float32).eps  # of the division and the product
        assert (error <= scale.double() / 2 + rounding).all()

    @pytest.mark.parametrize("precision", INTEGERS)
    @relaxed
    @given(x=values, scale=scales, zero_point=st.integers(-8, 7))
    def test_zero_is_exact_and_what_lies_outside_becomes_the_end(self, precision, x, scale, zero_point):
        offset = torch.tensor(zero_point, dtype=precision.format.storage)
        assert torch.equal(fake(torch.zeros(2), scale, precision, offset), torch.zeros(2))
        ends = fake(torch.tensor([-1e9, 1e9]), scale, precision, offset)
        assert torch.equal(ends, (torch.tensor([precision.low, precision.high]) - zero_point) * scale)

    @pytest.mark.parametrize("precision", Precision)
    @relaxed
    @given(x=values, scale=scales)
    def test_order_is_kept(self, precision, x, scale):
        assert (fake(x.sort().values, scale, precision).diff() >= 0).all()

    @pytest.mark.parametrize("precision", Precision)
    def test_per_channel_is_per_tensor_on_every_channel(self, precision):
        x, scale = random_input(3, 4, 5), torch.tensor([0.01, 0.3, 0.05, 1.0])
        whole = fake(x, scale, precision, axis=1)
        for channel in range(4):
            assert torch.equal(whole[:, channel], fake(x[:, channel], scale[channel], precision))

    @pytest.mark.parametrize("precision", Precision)
    @pytest.mark.parametrize("width", [8, 7, 3], ids=["whole blocks", "a rest", "less than one"])
    def test_in_blocks_is_per_tensor_on_every_block(self, precision, width):
        x = random_input(3, width)
        scale = random_input(3, -(-width // 4), seed=2).abs() * 0.1 + 0.01
        whole = fake(x, scale, precision, block=4)
        for row in range(3):
            for block in range(scale.shape[1]):
                part = slice(4 * block, 4 * block + 4)
                assert torch.equal(whole[row, part], fake(x[row, part], scale[row, block], precision))


def test_ties_go_to_even():
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert fake(x, torch.tensor(1.0), Precision.INT8).tolist() == [-2, -2, 0, 0, 2, 2]


@pytest.mark.filterwarnings("ignore:Deprecated since 1.18")  # what onnx 1.18's reference says of its own rounding
class TestOnnx:
    """Bit for bit what the reference implementation gives."""

    edges = torch.cat(
        [torch.arange(-260, 261) / 2.0, torch.tensor([1e6, -1e6, 447.9, 448.0, 460.0, 480.0, 1e-3, 2**-10, 0.0])]
    )

    @pytest.mark.parametrize("precision", ONNX_TYPES)
    @pytest.mark.parametrize("scale", [1.0, 0.5, 0.037, 3.1])
    def test_per_tensor(self, precision, scale):
        scale, x = torch.tensor(scale), torch.cat([self.edges, random_input(200) * 50])
        assert torch.equal(fake(x, scale, precision), rounded_by_onnx(x, scale, precision))

    @pytest.mark.parametrize("precision", ONNX_TYPES)
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_per_channel(self, precision, axis):
        x, scale = random_input(3, 3, 3) * 4, torch.tensor([0.01, 0.3, 2.0])
        assert torch.equal(fake(x, scale, precision, axis=axis), rounded_by_onnx(x, scale, precision, axis=axis))

    @pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16])
    @pytest.mark.parametrize("zero_point", [-128, -3, 100])
    def test_zero_points(self, precision, zero_point):
        scale, x = torch.tensor(0.25), self.edges
        got = fake(x, scale, precision, torch.tensor(zero_point, dtype=precision.format.storage))
        assert torch.equal(got, rounded_by_onnx(x, scale, precision, zero_point))


@relaxed
@given(x=values, scale=scales)
def test_fp8_is_torchs_own_cast_after_clamping(x, scale):
    wanted = (x / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    assert torch.equal(fake(x, scale, Precision.FP8), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("precision", Precision)
def test_dtypes_are_kept(dtype, precision):
    x, scale = random_input(5, 4).to(dtype), torch.tensor(0.125, dtype=dtype)
    got = fake(x, scale, precision)
    assert got.dtype == dtype
    assert torch.equal(got, fake(x.float(), scale.float(), precision).to(dtype))  # a power of two: all exact


@pytest.mark.parametrize("precision", Precision)
def test_stored_numbers_come_back_as_the_rounded_values(precision):
    x, scale = random_input(4, 6), torch.tensor([0.1, 0.01, 0.5, 1.0])
    stored = quantize_values(x, scale, None, 0, 0, precision).to(precision.format.storage)
    assert torch.equal(dequantize(stored, scale, None, 0, 0, precision.value), fake(x, scale, precision, axis=0))


def test_the_input_is_not_changed():
    x = random_input(4)
    kept = x.clone()
    for precision in Precision:
        fake(x, torch.tensor(0.1), precision)
    assert torch.equal(x, kept)


def test_scales_in_shapes_that_broadcast():
    x = torch.zeros(2, 3, 4)
    assert expand_scale(torch.tensor(1.0), x, -1, 0).shape == ()
    assert expand_scale(torch.ones(3), x, 1, 0).shape == (1, 3, 1)
    assert expand_scale(torch.ones(4), x, -1, 0).shape == (1, 1, 4)
    assert expand_scale(torch.ones(2, 3, 2), x, -1, 3).shape == (2, 3, 4)


class TestGradients:
    @pytest.mark.parametrize("precision", Precision)
    def test_straight_through_inside_and_zero_outside(self, precision):
        edge = precision.high * 0.5
        x = torch.tensor([-3 * edge, -edge * 0.9, -0.1, 0.0, 0.26, edge * 0.9, 3 * edge], requires_grad=True)
        incoming = torch.arange(1.0, 8.0)
        fake(x, torch.tensor(0.5), precision).backward(incoming)
        below = 0.0 if precision.is_unsigned else 1.0  # −0.1 is rounded to 0, which is inside
        assert torch.equal(x.grad, incoming * torch.tensor([0.0, below, 1, 1, 1, 1, 0]))

    def test_an_asymmetric_range_has_its_own_ends(self):
        x = torch.tensor([-1.5, -0.5, 0.0, 200.0, 300.0], requires_grad=True)
        fake(x, torch.tensor(1.0), Precision.INT8, torch.tensor(-128, dtype=torch.int8)).sum().backward()
        assert x.grad.tolist() == [0, 1, 1, 1, 0]  # −0.5 is rounded to 0, which is inside

    @pytest.mark.parametrize("precision", INTEGERS)
    @pytest.mark.parametrize(
        ("axis", "block", "shape"), [(-1, 0, ()), (1, 0, (4,)), (-1, 2, (3, 2))], ids=["tensor", "channel", "block"]
    )
    def test_of_the_scale_as_in_lsq(self, precision, axis, block, shape):
        """Esser et al. 2020, equation 3, times the step size of section 2.2; summed over what shares a scale.

        A value is inside if it is rounded to a number of the format.
        """
        x = random_input(3, 4) * precision.high * 0.2
        scale = (random_input(*shape, seed=3).abs() * 0.1 + 0.1).requires_grad_()
        incoming = random_input(3, 4, seed=4)
        fake(x, scale, precision, axis=axis, block=block).backward(incoming)
        spread = expand_scale(scale.detach(), x, axis, block).expand_as(x)
        expected = torch.zeros_like(x)
        for i in range(3):
            for j in range(4):
                ratio = float(x[i, j] / spread[i, j])
                inside = precision.low <= round(ratio) <= precision.high
                end = precision.low if ratio < 0 else precision.high
                expected[i, j] = (round(ratio) - ratio if inside else end) * incoming[i, j]
        sums = {(): expected.sum(), (4,): expected.sum(0), (3, 2): expected.reshape(3, 2, 2).sum(-1)}[shape]
        count = 12 / max(scale.numel(), 1)
        assert scale.grad.shape == scale.shape
        torch.testing.assert_close(scale.grad, sums / (count * precision.high) ** 0.5, rtol=1e-4, atol=1e-5)

    def test_of_the_scale_agrees_with_a_difference_quotient_where_everything_is_cut_off(self):
        """There the result is ±high·scale, which has a true derivative."""
        x = torch.full((6,), 1e5)
        scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        fake(x.double(), scale, Precision.INT8).sum().backward()
        step = 1e-3
        ends = [
            fake(x.double(), torch.tensor(0.5 + d, dtype=torch.float64), Precision.INT8).sum() for d in (-step, step)
        ]
        quotient = (ends[1] - ends[0]) / (2 * step)
        torch.testing.assert_close(scale.grad, quotient / (6 * 127) ** 0.5)


@relaxed
@given(x=values, scale=scales)
def test_torch_sees_proper_operators(x, scale):
    arguments = (x.clone().requires_grad_(), scale, None, -1, 0, "int8")
    torch.library.opcheck(fake_quantize, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch 2.14 in its own check
def test_torch_sees_proper_operators_with_gradients():
    arguments = (random_input(4).requires_grad_(), torch.tensor(0.1), None, -1, 0, "int8")
    torch.library.opcheck(fake_quantize, arguments)
    stored = (torch.tensor([1, 2], dtype=torch.int8), torch.tensor(0.1), None, -1, 0, "int8")
    torch.library.opcheck(dequantize, stored, test_utils=("test_schema", "test_faketensor"))
