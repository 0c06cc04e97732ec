"""Conditions on open sizes that torch cannot prove."""

import pytest
import torch
from torch import nn
from torch.export import Dim

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import CaptureError, InputError
from embedl_deploy.export import run_onnx
from support.nets import net, random_input

X = random_input(1, 2, 5, 4)


def repeated(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """As models of language repeat keys; torch does not see that the strides of the result are what they must be."""
    longer = torch.cat([x, x[:, :, :1]], dim=2)
    batch, heads, length, size = longer.shape
    wide = longer[:, :, None].expand(batch, heads, 2, length, size).reshape(batch, heads * 2, length, size)
    return nn.functional.scaled_dot_product_attention(wide, wide, wide)


def cut(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x[:, :, -8:] if x.shape[2] > 8 else x * 2


def test_what_always_holds_is_no_reason_to_refuse_a_size():
    result = transform(
        net(repeated), X, patterns=[], trace="export", dynamic_shapes={"x": {2: Dim("length", min=2, max=40)}}
    )
    for length in (2, 17, 40):
        assert result.verify(random_input(1, 2, length, 4)).max_rel < 1e-6
    with pytest.raises(InputError):
        result.model(random_input(1, 2, 41, 4))


def test_what_holds_for_some_sizes_is():
    with pytest.raises(CaptureError, match=r"Constraints violated \(length\)"):
        transform(net(cut), X, patterns=[], trace="export", dynamic_shapes={"x": {2: Dim("length", min=2, max=40)}})


def attending(_: nn.Module, cache: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Keys that are repeated for groups of heads, and a mask for them and the next one: its size is theirs plus one."""
    longer = torch.cat([cache, cache[:, :, :1]], dim=2)
    batch, heads, length, size = longer.shape
    wide = longer[:, :, None].expand(batch, heads, 2, length, size).reshape(batch, heads * 2, length, size)
    if mask.shape[-1] != length:
        raise ValueError("the mask is not for these keys")
    return nn.functional.scaled_dot_product_attention(wide, wide, wide, attn_mask=mask[:, None, None])


PAST = Dim("past", min=2, max=40)


def test_a_size_that_follows_from_another_is_open_in_graph_and_file(tmp_path):
    inputs = (X, random_input(1, 6))
    sizes = {"x": {2: PAST}, "y": {1: PAST + 1}}
    result = transform(net(attending), inputs, patterns=[], trace="export", dynamic_shapes=sizes)
    written = export_onnx(result, inputs, tmp_path / "m.onnx")
    for length in (2, 17, 40):
        others = (random_input(1, 2, length, 4), random_input(1, length + 1))
        assert result.verify(*others).max_rel < 1e-6
        (found,) = run_onnx(written.path, *others)
        torch.testing.assert_close(found, attending(None, *others), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError):
        result.model(random_input(1, 2, 7, 4), random_input(1, 7))


def test_a_name_of_its_own_for_such_a_size_is_refused_with_what_to_write():
    sizes = {"x": {2: PAST}, "y": {1: Dim("total", min=3, max=41)}}
    with pytest.raises(CaptureError, match=r"by total = past \+ 1"):
        transform(net(attending), (X, random_input(1, 6)), patterns=[], trace="export", dynamic_shapes=sizes)
