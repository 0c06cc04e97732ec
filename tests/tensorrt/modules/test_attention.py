"""Multi-head attention in parts."""

import math

import pytest
import torch
from torch import nn

from embedl_deploy.modules import ConvertedModule
from embedl_deploy.tensorrt.modules import (
    FusedMHAInProjection,
    FusedScaledDotProductAttention,
    MHAInProjection,
    ScaledDotProductAttention,
)
from support.agreement import assert_close
from support.fused_modules import check_fused_module, check_input_stubs, check_weight_stub
from support.nets import random_input, scrambled
from support.quantizers import RoundTo

#: (B, S, E), with H = 2 heads of D = 3.
X = random_input(2, 5, 6)
QKV = tuple(random_input(2, 2, 5, 3, seed=seed) for seed in (2, 3, 4))


def test_inputs_to_quantize_is_known_without_an_instance() -> None:
    assert FusedMHAInProjection.inputs_to_quantize == frozenset({0})
    assert FusedScaledDotProductAttention.inputs_to_quantize == frozenset({0, 1, 2})
    assert issubclass(MHAInProjection, ConvertedModule) and issubclass(ScaledDotProductAttention, ConvertedModule)


@pytest.mark.parametrize("shape", [(2, 5, 6), (5, 6), (2, 3, 5, 6)], ids=["batch", "no batch", "two batch axes"])
def test_in_projection_splits_rows_into_queries_keys_and_values_by_head(shape: tuple[int, ...]) -> None:
    projection = scrambled(MHAInProjection(nn.Linear(6, 18), num_heads=2))
    x = random_input(*shape)
    packed = projection.linear(x)
    for index, part in enumerate(projection(x)):
        assert part.shape == (*shape[:-2], 2, 5, 3)
        for head in range(2):
            rows = slice(index * 6 + head * 3, index * 6 + head * 3 + 3)
            assert_close(part[..., head, :, :], packed[..., rows], 0.0)
    assert "num_heads=2" in repr(projection)


def test_in_projection_without_a_bias_for_the_keys() -> None:
    projection = scrambled(MHAInProjection(nn.Linear(6, 18), num_heads=2, zero_key_bias=True))
    plain = MHAInProjection(projection.linear, num_heads=2)
    bias = projection.linear.bias.unflatten(0, (3, 2, 1, 3))[1]
    (q, k, v), (plain_q, plain_k, plain_v) = projection(X), plain(X)
    assert_close((q, v), (plain_q, plain_v), 0.0)
    assert_close(k + bias, plain_k, 1e-6)
    without = MHAInProjection(nn.Linear(6, 18, bias=False), num_heads=2, zero_key_bias=True)
    assert len(without(X)) == 3


def test_fused_in_projection() -> None:
    for zero_key_bias in (False, True):
        projection = MHAInProjection(nn.Linear(6, 18), num_heads=2, zero_key_bias=zero_key_bias)
        fused = FusedMHAInProjection(projection)
        check_fused_module(fused, projection, projection, (X, X, X))
        check_input_stubs(fused, projection, (X,), [0])
        check_weight_stub(fused, projection.linear.weight, (X,))


def test_scaled_dot_product_attention() -> None:
    attention = ScaledDotProductAttention()
    q, k, v = QKV
    weights = (q @ k.transpose(-1, -2) / math.sqrt(3)).softmax(-1)
    expected = (weights @ v).permute(0, 2, 1, 3).reshape(2, 5, 6)
    assert_close(attention(q, k, v), expected, 1e-6)
    assert attention(q[0], k[0], v[0]).shape == (5, 6)


def test_a_query_that_sees_no_key_gets_0_or_nan() -> None:
    mask = torch.tensor([True, False, True, True, True])[:, None].expand(5, 5)
    for nan in (False, True):
        attention = ScaledDotProductAttention(joins_heads=False, unseen_is_nan=nan)
        attended = attention(*QKV, mask)
        assert attended[:, :, 1].isnan().all() if nan else not attended[:, :, 1].any()
        rest = [0, 2, 3, 4]
        assert_close(attended[:, :, rest], ScaledDotProductAttention(joins_heads=False)(*QKV)[:, :, rest], 1e-6)
        assert ("unseen_is_nan" in repr(attention)) is nan


def test_in_steps_a_query_that_sees_no_key_gets_0_and_no_gradient() -> None:
    mask = torch.zeros(5, 5).index_fill(0, torch.tensor([1]), -math.inf)
    q, k, v = (x.clone().requires_grad_() for x in QKV)
    fused = FusedScaledDotProductAttention(ScaledDotProductAttention(joins_heads=False, unseen_is_nan=True))
    fused.softmax_quant.quantizer = nn.Identity()
    attended = fused(q, k, v, mask)
    assert not attended[:, :, 1].any()
    attended.sum().backward()
    assert not q.grad[:, :, 1].any() and q.grad[:, :, 2].any()
    assert all(x.grad.isfinite().all() for x in (q, k, v))


def test_dropout_acts_in_training_mode_alone() -> None:
    attention = ScaledDotProductAttention(dropout=0.5)
    assert "dropout=0.5" in repr(attention)
    assert not torch.equal(attention(*QKV), attention(*QKV))
    attention.eval()
    assert_close(attention(*QKV), ScaledDotProductAttention()(*QKV), 0.0)


def test_fused_scaled_dot_product_attention() -> None:
    attention = ScaledDotProductAttention()
    fused = FusedScaledDotProductAttention(attention)
    check_fused_module(fused, attention, attention, QKV)
    check_input_stubs(fused, attention, QKV, [0, 1, 2], scaled={0: 3**-0.5})
    assert fused.input_quant_stubs[0] is fused.query_quant
    assert not hasattr(fused, "weight_fake_quant")


def test_a_quantizer_of_the_softmax_is_called() -> None:
    fused = FusedScaledDotProductAttention(ScaledDotProductAttention(dropout=0.5)).eval()
    plain = fused(*QKV)
    fused.softmax_quant.quantizer = nn.Identity()
    assert_close(fused(*QKV), plain, 1e-6)  # in two steps it is the same attention
    fused.softmax_quant.quantizer = quantizer = RoundTo(0.25)
    q, k, v = QKV
    weights = quantizer.round((q @ k.transpose(-1, -2) / math.sqrt(3)).softmax(-1))
    assert_close(fused(*QKV), (weights @ v).permute(0, 2, 1, 3).reshape(2, 5, 6), 1e-5)
    assert quantizer.calls == 1
    fused.train()
    assert not torch.equal(fused(*QKV), fused(*QKV)), "the dropout of the two-step form acts in training mode"
