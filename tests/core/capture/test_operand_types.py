"""Operands that meet in two types: a graph in float16 makes the casts that torch.autocast would."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.capture import capture
from embedl_deploy.capture.operand_types import OperandsOfOneType
from embedl_deploy.graph.edit import deep_copy
from support.nets import net, random_input

X = random_input(2, 4, 8, 8)


def grid(x):
    """Coordinates from -1 to 1, (N, H, W, 2), in float32 whatever ``x`` is."""
    rows, columns = (torch.arange(size, device=x.device).to(torch.float32) / 4 - 1 for size in x.shape[-2:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).expand(x.shape[0], -1, -1, -1)


def as_the_weight(m, value):
    return value.to(m.conv.weight.dtype)


# What a model writes, and what it would write if its author thought of other types: casts change nothing in float32.
WAYS = {
    "a layer": (
        lambda m, x: m.conv(torch.cat([x, grid(x).permute(0, 3, 1, 2)], 1)),
        lambda m, x: m.conv(as_the_weight(m, torch.cat([x, grid(x).permute(0, 3, 1, 2)], 1))),
    ),
    "a function": (
        lambda m, x: F.linear(input=grid(x), weight=m.fc.weight),
        lambda m, x: F.linear(as_the_weight(m, grid(x)), m.fc.weight),
    ),
    "products": (
        lambda _m, x: torch.einsum("nchw,nhwk->nck", x, grid(x)) @ grid(x)[:, 0].mT,
        lambda _m, x: torch.einsum("nchw,nhwk->nck", x, grid(x).to(x.dtype)) @ grid(x)[:, 0].mT.to(x.dtype),
    ),
    "a sampler": (
        lambda _m, x: F.grid_sample(x, grid(x) / 2, align_corners=False),
        lambda _m, x: F.grid_sample(x.float(), grid(x) / 2, align_corners=False),
    ),
    "a norm": (
        lambda m, x: m.norm(grid(x)) + F.layer_norm(grid(x), (2,), weight=m.norm.weight),
        lambda m, x: m.norm(as_the_weight(m, grid(x))) + F.layer_norm(grid(x), (2,), weight=m.norm.weight.float()),
    ),
    "what is written": (
        lambda _m, x: torch.index_put(x, (torch.tensor([1]),), grid(x)[:1, 0, 0, 0]),
        lambda _m, x: torch.index_put(x, (torch.tensor([1]),), grid(x)[:1, 0, 0, 0].to(x.dtype)),
    ),
}


def of(compute):
    return net(compute, conv=nn.Conv2d(6, 4, 3), fc=nn.Linear(2, 3), norm=nn.LayerNorm(2))


@pytest.mark.parametrize("way", WAYS)
def test_a_converted_graph_makes_the_casts_that_its_author_left_out(way):
    written, wanted = map(of, WAYS[way])
    captured = capture(written, (X,), trace="export")
    assert captured.notes == ()
    assert torch.equal(captured.graph_module(X), written(X))
    half = deep_copy(captured.graph_module).half()(X.half())
    found = wanted.half()(X.half())
    assert half.dtype is found.dtype
    assert torch.equal(half, found)
    with pytest.raises(RuntimeError):
        written.half()(X.half())


def test_what_is_of_one_type_or_promotes_or_is_seen_to_by_autocast_is_left_alone():
    half, wide, fc = X.half(), X, nn.Linear(8, 8)
    with OperandsOfOneType(torch.float16), torch.no_grad():
        assert [value.dtype for value in (half + wide, wide @ wide, torch.cat([half, wide]))] == [torch.float32] * 3
        assert (half @ wide).dtype is torch.float16
        with torch.autocast("cpu", torch.bfloat16):
            assert fc(half).dtype is torch.bfloat16
        with pytest.raises(RuntimeError):
            wide.double() @ wide
