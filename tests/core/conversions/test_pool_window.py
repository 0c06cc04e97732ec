"""Pools whose window is larger than the map."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.conversions import ClipPoolWindowPattern
from embedl_deploy.modules.clipped_pool import ClippedPool
from support.agreement import applied, assert_close, check_rewrite, reasons
from support.nets import net, random_input

PATTERNS = [ClipPoolWindowPattern()]
MAPS, SEQUENCES, VOLUMES = random_input(2, 3, 7, 5), random_input(2, 3, 7), random_input(2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("pool", "x"),
    [
        (nn.AvgPool2d(320, ceil_mode=True), MAPS),
        (nn.AvgPool2d((9, 2), ceil_mode=True), MAPS),
        (nn.AvgPool2d(12, stride=11, padding=2, ceil_mode=True), MAPS),
        (nn.AvgPool2d(12, stride=11, padding=2, ceil_mode=True, count_include_pad=False), MAPS),
        (nn.AvgPool2d(12, padding=2, ceil_mode=True, divisor_override=5), MAPS),
        (nn.AvgPool1d(20, padding=1, ceil_mode=True), SEQUENCES),
        (nn.MaxPool1d(20, ceil_mode=True), SEQUENCES),
        (nn.MaxPool2d((20, 3), padding=(2, 1), ceil_mode=True), MAPS),
        (nn.MaxPool3d((3, 9, 9), ceil_mode=True), VOLUMES),
        (lambda x: F.avg_pool2d(x, 320, ceil_mode=True), MAPS),
        (lambda x: F.max_pool2d(x, (9, 2), ceil_mode=True), MAPS),
    ],
)
def test_the_window_is_cut_to_the_map(pool, x):
    for given in (x, x[0]):
        assert len(applied(check_rewrite(net(lambda m, x: m.pool(x), pool=pool), (given,), PATTERNS))) == 1


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_what_is_called_has_a_window_of_the_maps_size(trace):
    model = net(lambda m, x: m.pool(x * 2), pool=nn.AvgPool2d(320, ceil_mode=True))
    result = transform(model, MAPS, patterns=PATTERNS, trace=trace, strict=True)
    program = torch.export.export(result.model, (MAPS,))
    (node,) = [node for node in program.graph.nodes if node.target is torch.ops.aten.avg_pool2d.default]
    assert (node.args[1], node.args[2]) == ([7, 5], [7, 5])


def test_a_larger_map_is_pooled_as_before():
    model = net(lambda m, x: m.pool(x), pool=nn.AvgPool2d(8, ceil_mode=True))
    result = transform(model, MAPS, patterns=PATTERNS)
    assert len(applied(result)) == 1
    larger = random_input(2, 3, 20, 6)
    assert_close(result.model(larger), model(larger))


def test_a_map_whose_sides_the_user_left_open_is_not_taken():
    model = net(lambda m, x: m.pool(x * 2), pool=nn.AvgPool2d(320, ceil_mode=True))
    shapes = {"x": {2: torch.export.Dim("height", min=2, max=300)}}
    (reason,) = reasons(transform(model, MAPS, patterns=PATTERNS, dynamic_shapes=shapes))
    assert "dynamic_shapes leaves sizes of the map open, and its window of 320×320" in reason
    batch = {"x": {0: torch.export.Dim("batch")}}
    assert len(applied(transform(model, MAPS, patterns=PATTERNS, dynamic_shapes=batch))) == 1


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        (nn.MaxPool2d(9, ceil_mode=True, return_indices=True), "it gives the places of the maximum as well"),
        (nn.MaxPool2d(5, stride=9, dilation=2, ceil_mode=True), "its window is dilated: dilation=(2, 2)"),
    ],
)
def test_it_says_why_not(pool, why):
    (reason,) = reasons(transform(net(lambda m, x: m.pool(x), pool=pool), MAPS, patterns=PATTERNS))
    assert reason.endswith(why)


def test_hooks_are_kept():
    pool = nn.AvgPool2d(9, ceil_mode=True)
    pool.register_forward_hook(lambda module, args, output: output * 2)
    model = net(lambda m, x: m.pool(x), pool=pool)
    result = check_rewrite(model, (MAPS,), PATTERNS)
    assert reasons(result)[0].endswith("hooks on the pool would be lost")


@pytest.mark.parametrize("pool", [nn.AvgPool2d(3, ceil_mode=True), nn.AvgPool2d((7, 5)), nn.MaxPool2d(7, padding=1)])
def test_other_windows_stay(pool):
    assert applied(check_rewrite(net(lambda m, x: m.pool(x), pool=pool), (MAPS,), PATTERNS)) == []


def test_without_a_shape_nothing_is_known():
    model = net(lambda m, x: m.pool(x), pool=nn.AvgPool2d(9, ceil_mode=True))
    assert applied(check_rewrite(model, (MAPS,), PATTERNS, shapes=False)) == []


def test_in_float16_it_stays_in_float16():
    pool = ClippedPool(nn.AvgPool2d(320, ceil_mode=True))
    assert_close(pool(MAPS.half()), MAPS.half().mean((2, 3), keepdim=True), 2e-3)
