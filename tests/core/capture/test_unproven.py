"""Conditions on open sizes that torch cannot prove."""

import pytest
import torch
from torch import nn
from torch.export import Dim

from embedl_deploy import transform
from embedl_deploy.errors import CaptureError, InputError
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
