"""Attention within shifted windows in parts."""

import pytest
import torch

from embedl_deploy.modules import ConvertedModule
from embedl_deploy.tensorrt.modules import (
    FusedSwinAttention,
    SwinAttention,
    SwinWindowPartition,
    SwinWindowReverse,
)
from support.agreement import assert_close
from support.fused_modules import check_fused_module
from support.nets import random_input
from support.quantizers import RoundTo

#: (B·W, H, T, D) with B = 2, W = 2, T = 4.
QKV = tuple(random_input(4, 2, 4, 3, seed=seed) for seed in (2, 3, 4))
BIAS = random_input(1, 2, 4, 4, seed=5)
MASK = torch.where(random_input(2, 4, 4, seed=6) > 1, -100.0, 0.0)
LOGIT_SCALE = random_input(2, 1, 1, seed=7)


def test_the_parts_are_products_of_a_conversion() -> None:
    for part in (SwinWindowPartition, SwinWindowReverse, SwinAttention):
        assert issubclass(part, ConvertedModule)
    assert FusedSwinAttention.inputs_to_quantize == frozenset()


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (3, 2), (4, 12), (1, 1)], ids=str)
@pytest.mark.parametrize("shift", [(0, 0), (2, 2), (1, 3), (2, 0)], ids=str)
def test_reverse_undoes_partition(size: tuple[int, int], shift: tuple[int, int]) -> None:
    x = random_input(2, *size, 3)
    partition, reverse = SwinWindowPartition((4, 4), shift), SwinWindowReverse((4, 4), shift)
    parts = partition(x)
    windows = parts[0] if partition.shifted else parts
    assert windows.shape[1:] == (16, 3)
    assert torch.equal(reverse(windows, x), x)
    assert partition.shifted is (sum(shift) > 0)


def test_windows_are_cut_row_by_row() -> None:
    x = torch.arange(16.0).reshape(1, 4, 4, 1)
    windows = SwinWindowPartition((2, 2), (0, 0))(x)
    assert windows.squeeze(-1).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_the_mask_parts_tokens_that_are_neighbours_only_after_rolling() -> None:
    """4×4 in windows of 2×2, shifted by 1: the first window is whole, the last holds the four corners."""
    windows, mask = SwinWindowPartition((2, 2), (1, 1))(torch.arange(16.0).reshape(1, 4, 4, 1))
    assert windows.squeeze(-1).tolist() == [[5, 6, 9, 10], [7, 4, 11, 8], [13, 14, 1, 2], [15, 12, 3, 0]]
    assert mask.shape == (4, 4, 4)
    allowed = (mask == 0).tolist()
    everything, nothing_else = [[True] * 4] * 4, torch.eye(4).bool().tolist()
    left_right = [[True, False] * 2, [False, True] * 2] * 2
    top_bottom = [[True, True, False, False]] * 2 + [[False, False, True, True]] * 2
    assert allowed == [everything, left_right, top_bottom, nothing_else]
    assert set(mask.unique().tolist()) == {-100.0, 0.0}


def test_a_side_that_fits_into_one_window_is_not_shifted() -> None:
    partition = SwinWindowPartition((4, 4), (2, 2))
    assert partition.layout(3, 9) == ((4, 12), (0, 2))
    _, mask = partition(random_input(1, 3, 4, 2))
    assert mask.shape == (1, 16, 16) and not mask.any()
    assert "window_size=(4, 4), shift_size=(2, 2)" in repr(partition)


@pytest.mark.parametrize("logit_scale", [None, LOGIT_SCALE], ids=["dot product", "cosine"])
@pytest.mark.parametrize("mask", [None, MASK], ids=["no mask", "mask"])
def test_attention(mask: torch.Tensor | None, logit_scale: torch.Tensor | None) -> None:
    q, k, v = QKV
    if logit_scale is None:
        scores = q @ k.transpose(-1, -2) / 3**0.5
    else:
        q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
        scores = q @ k.transpose(-1, -2) * logit_scale.exp()
    scores = scores + BIAS
    if mask is not None:  # windows come image by image
        scores = scores + mask.repeat(2, 1, 1)[:, None]
    expected = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).reshape(4, 4, 6)
    attention = SwinAttention()
    assert_close(attention(*QKV, BIAS, mask, logit_scale), expected, 1e-5)

    fused = FusedSwinAttention(attention)
    inputs = [*QKV, BIAS, *([] if mask is None else [mask])]
    if logit_scale is None:
        check_fused_module(fused, attention, attention, inputs)
    quantizer = RoundTo(0.25)
    fused.softmax_quant.quantizer = quantizer
    weights = quantizer.round(scores.softmax(-1))
    got = fused(*QKV, BIAS, mask, logit_scale)
    assert quantizer.calls == 1
    assert_close(got, (weights @ v).permute(0, 2, 1, 3).reshape(4, 4, 6), 1e-5)
    assert fused.input_quant_stubs == {} and not hasattr(fused, "weight_fake_quant")


def test_the_logit_scale_is_clamped_at_100() -> None:
    attention = SwinAttention()
    large, largest = torch.full((2, 1, 1), 9.0), torch.full((2, 1, 1), 100.0).log()
    assert_close(attention(*QKV, BIAS, None, large), attention(*QKV, BIAS, None, largest), 0.0)


def test_dropout_acts_in_training_mode_alone() -> None:
    attention = SwinAttention(dropout=0.5)
    assert "dropout=0.5" in repr(attention)
    assert not torch.equal(attention(*QKV, BIAS), attention(*QKV, BIAS))
    attention.eval()
    assert_close(attention(*QKV, BIAS), SwinAttention()(*QKV, BIAS), 0.0)
