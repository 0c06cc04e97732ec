"""Batch norms that no convolution comes before."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.quantize import freeze, quantize
from embedl_deploy_sensai_stub.quantization import SENSAI_QUANT_CONFIG
from support.nets import net, scrambled

IMAGE = (2, 4, 8, 8)
NAME = "BatchNormToDepthwiseConvPattern"


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ((nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)), ["SensaiConvBNReLU", "SensaiConvBN"]),
        ((nn.MaxPool2d(2), nn.BatchNorm2d(4)), ["SensaiMaxPool", "SensaiConvBN"]),
        ((nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False)), ["SensaiConvBN", "SensaiConvBN"]),
        ((nn.Conv2d(4, 4, 5), nn.BatchNorm2d(4), nn.ReLU()), ["Conv2d", "SensaiConvBNReLU"]),
    ],
    ids=["first", "behind pooling", "two", "behind another convolution"],
)
def test_matches_and_agrees(layers, expected, fuse, kinds, assert_agrees):
    model = scrambled(nn.Sequential(*layers))
    assert kinds(fuse(model)) == expected
    assert_agrees(model, torch.randn(IMAGE), expect=2)


def test_an_average_pool_becomes_the_convolution_that_it_is_folded_into(fuse, kinds):
    model, x = scrambled(nn.Sequential(nn.AvgPool2d(2), nn.BatchNorm2d(4), nn.ReLU())).eval(), torch.randn(IMAGE)
    assert kinds(fuse(model, x)) == ["SensaiConvBNReLU"]
    assert kinds(fuse(model)) == ["AvgPool2d", "SensaiConvBNReLU"], "without shapes the pool stays"


def test_a_convolution_whose_result_is_used_twice(fuse, kinds):
    model = net(lambda m, x: m.bn(y := m.conv(x)) + y, conv=nn.Conv2d(4, 4, 1), bn=nn.BatchNorm2d(4))
    x = torch.randn(IMAGE)
    result = fuse(model, x)
    assert kinds(result) == ["SensaiConvBN", "SensaiConvBN", "SensaiAdd"]
    torch.testing.assert_close(result.model(x), model(x))


def test_one_batch_norm_in_two_places_stays_one(fuse, kinds):
    model, x = net(lambda m, x: m.bn(m.bn(x)), bn=nn.BatchNorm2d(4)).train(), torch.randn(IMAGE)
    result = fuse(copy.deepcopy(model), x)
    assert kinds(result) == ["SensaiConvBN", "SensaiConvBN"]
    torch.testing.assert_close(result.model(x), model(x))
    assert {id(module) for module in result.model.modules() if isinstance(module, nn.BatchNorm2d)}.__len__() == 1
    norm = next(module for module in result.model.modules() if isinstance(module, nn.BatchNorm2d))
    torch.testing.assert_close(norm.running_var, model.bn.running_var)


def test_functional_form_counts(fuse, kinds):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.rand(4))
            self.register_buffer("var", torch.rand(4) + 0.5)

        def forward(self, x):
            return F.batch_norm(x, self.mean, self.var)

    model, x = Functional(), torch.randn(IMAGE)
    result = fuse(model, x)
    assert kinds(result) == ["SensaiConvBN"]
    torch.testing.assert_close(result.model(x), model(x))
    sequence = torch.randn(2, 4, 9)
    torch.testing.assert_close(fuse(model).model(sequence), model(sequence))  # without shapes it may be no image


def test_the_ones_are_not_trained(fuse):
    result = fuse(nn.Sequential(nn.BatchNorm2d(4)).train(), torch.randn(IMAGE))
    trained = [name for name, parameter in result.model.named_parameters() if parameter.requires_grad]
    assert sorted(name.rpartition(".")[2] for name in trained) == ["bias", "weight"]
    assert all(".bn." in name for name in trained)


def test_hooks_run(fuse):
    model, x = scrambled(nn.Sequential(nn.BatchNorm2d(4))).eval(), torch.randn(IMAGE)
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    torch.testing.assert_close(fuse(model, x).model(x), model(x))


def test_keeps_half_precision(fuse):
    model, x = scrambled(nn.Sequential(nn.BatchNorm2d(4))).eval().to(torch.bfloat16), torch.randn(IMAGE).bfloat16()
    torch.testing.assert_close(fuse(model, x).model(x), model(x))


def test_leaves_alone_what_is_folded_anyway_and_declines_what_cannot_be(fuse, kinds, reasons):
    behind = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    assert fuse(behind).report["applied_count"] == 1
    assert reasons(behind, NAME) == [], "an ordinary network has many of these: not a word about them"
    assert kinds(fuse(behind)) == ["SensaiConvBN"]
    (reason,) = reasons(nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False)), NAME)
    assert reason.startswith("the batch norm keeps no running statistics")


def test_quantized_and_folded_it_is_close_and_can_be_saved(fuse):
    model, x = scrambled(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3))).eval(), torch.randn(IMAGE)
    frozen = freeze(quantize(fuse(model, x), [x], SENSAI_QUANT_CONFIG, progress=False))
    wanted = model(x)
    assert float((frozen(x) - wanted).detach().norm() / wanted.detach().norm()) < 0.05
    again = copy.deepcopy(frozen)
    for parameter in again.parameters():
        parameter.data.zero_()
    again.load_state_dict(frozen.state_dict())
    torch.testing.assert_close(again(x), frozen(x), rtol=0, atol=0)


def test_a_second_run_changes_nothing(fuse):
    model, x = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), torch.randn(IMAGE)
    first = fuse(model, x)
    assert first.report["applied_count"] == 2
    assert fuse(first.model, x).report["applied_count"] == 0
