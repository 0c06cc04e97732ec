"""The rewrites that the report offers: each computes the same, and nothing is offered where none does."""

import pytest
import torch
from torch import nn

from embedl_deploy_sensai_stub.limits import average_pool_limit, conv_limit, max_pool_limit
from support.nets import scrambled

IMAGE = (2, 4, 16, 16)


def rewrites(fuse, layer, *shape):
    (given,) = fuse(nn.Sequential(layer), torch.randn(shape or IMAGE)).report.unsupported.values()
    return given.partition(". Exact rewrite: ")[2]


def filled_up(conv):
    """A 1×3 kernel as a 3×3 one."""
    filled = nn.Conv2d(4, 6, 3, stride=conv.stride, padding=(conv.padding[0] + 1, conv.padding[1]))
    filled.weight.data = torch.cat([torch.zeros(6, 4, 1, 3), conv.weight.data, torch.zeros(6, 4, 1, 3)], 2)
    filled.bias = conv.bias
    return filled


def one_group(conv):
    """Two groups as one, with zeros between them."""
    dense = nn.Conv2d(4, 4, 3)
    dense.weight.data = torch.zeros(4, 4, 3, 3)
    dense.weight.data[:2, :2], dense.weight.data[2:, 2:] = conv.weight.data[:2], conv.weight.data[2:]
    dense.bias = conv.bias
    return dense


CASES = [
    (nn.Conv2d(4, 6, (1, 3), 2), "fill the kernel up with zeros to 3×3, and pad by as much more", filled_up),
    (nn.Conv2d(4, 4, 3, groups=2), "use one group with zeros between the groups, at 2 times the products", one_group),
    (
        nn.MaxPool2d(4),
        "use 2 2×2 poolings in sequence",
        lambda pool: nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(2)),
    ),
    (
        nn.AvgPool2d(8),
        "use 3 2×2 poolings in sequence",
        lambda pool: nn.Sequential(*(nn.AvgPool2d(2) for _ in range(3))),
    ),
    (
        nn.AdaptiveAvgPool2d(8),
        "use AvgPool2d((2, 2)), which is the same on maps of this size",
        lambda pool: nn.AvgPool2d((2, 2)),
    ),
    (
        nn.AdaptiveAvgPool2d((16, None)),
        "leave it out: it changes nothing on maps of this size",
        lambda pool: nn.Identity(),
    ),
]


@pytest.mark.parametrize(("layer", "text", "rewrite"), CASES, ids=lambda value: type(value).__name__)
def test_computes_the_same_and_runs(layer, text, rewrite, fuse):
    layer = scrambled(layer)
    assert rewrites(fuse, layer) == text
    instead, x = rewrite(layer), torch.randn(IMAGE)
    torch.testing.assert_close(instead(x), layer(x))
    limits = {nn.Conv2d: conv_limit, nn.MaxPool2d: max_pool_limit, nn.AvgPool2d: average_pool_limit}
    parts = [part for part in instead.modules() if type(part) in limits]
    assert [limits[type(part)](part) for part in parts] == [None] * len(parts)


@pytest.mark.parametrize("shape", [(2, 5, 6), (2, 3, 5, 6)])
def test_a_linear_layer_of_many_vectors_is_a_convolution(shape, fuse):
    linear, x = nn.Linear(6, 4), torch.randn(shape)
    assert rewrites(fuse, linear, *shape).endswith("and use a 1×1 convolution")
    conv = nn.Conv2d(6, 4, 1)
    conv.weight.data, conv.bias = linear.weight.data[..., None, None], linear.bias
    as_map = x.reshape(2, -1, shape[-2], 6).permute(0, 3, 1, 2)
    torch.testing.assert_close(conv(as_map).permute(0, 2, 3, 1).reshape(*shape[:-1], 4), linear(x))


def test_a_lone_relu_gets_a_convolution_of_ones(fuse, kinds):
    assert rewrites(fuse, nn.ReLU()) == "put a depthwise 1×1 convolution with weights of one in front of it"
    ones = nn.Conv2d(4, 4, 1, groups=4, bias=False)
    nn.init.ones_(ones.weight)
    model, x = nn.Sequential(ones, nn.ReLU()), torch.randn(IMAGE)
    assert kinds(fuse(model, x)) == ["SensaiConvBNReLU"]
    torch.testing.assert_close(model(x), x.relu(), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 6), (1, 2, 3, 4, 5)])
def test_a_lone_relu_of_what_is_no_map_does_not(shape, fuse):
    assert rewrites(fuse, nn.ReLU(), *shape) == ""


def test_a_batch_norm_behind_a_linear_layer_is_folded(fuse):
    linear, bn, x = nn.Linear(6, 4), scrambled(nn.BatchNorm1d(4)).eval(), torch.randn(3, 6)
    (given,) = fuse(nn.Sequential(linear, bn).eval(), x).report.unsupported.values()
    assert given.endswith("fold it into the linear layer, torch.nn.utils.fusion.fuse_linear_bn_eval")
    folded = torch.nn.utils.fusion.fuse_linear_bn_eval(linear.eval(), bn)
    torch.testing.assert_close(folded(x), bn(linear(x)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 5),
        nn.Conv2d(4, 4, 3, stride=3),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, (1, 3), dilation=2),
        nn.Conv2d(4, 4, 3, groups=2, stride=3),
        nn.Conv2d(4, 4, 3, padding_mode="reflect", padding=1),
        nn.MaxPool2d(3, 2),
        nn.MaxPool2d(6),
        nn.MaxPool2d(4, ceil_mode=True),
        nn.AvgPool2d(4, divisor_override=3),
        nn.AvgPool2d(5),
        nn.AdaptiveAvgPool2d(5),
        nn.AdaptiveAvgPool2d(2),
        nn.ReLU6(),
        nn.Hardswish(),
        nn.GELU(),
        nn.LayerNorm(16),
    ],
    ids=str,
)
def test_nothing_is_offered_that_is_not_the_same(layer, fuse):
    assert rewrites(fuse, layer) == ""
