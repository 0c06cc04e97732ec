"""New weights make plain modules, and batch norm is folded only where nobody listens."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from embedl_deploy.errors import ArgumentError
from embedl_deploy.modules import FusedConv, fix_parametrized_weights, with_parameters
from support.nets import random_input, scrambled

X = random_input(2, 4, 6, 6)


class Conv(FusedConv):
    def forward(self, x):
        return self.convolve(x)


def conv_and_norm():
    fused = Conv(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))
    return scrambled(fused).eval()


@pytest.mark.parametrize("parametrization", [parametrizations.weight_norm, parametrizations.spectral_norm])
class TestParametrized:
    def test_new_parameters_make_a_plain_module(self, parametrization):
        conv = parametrization(nn.Conv2d(4, 8, 3)).eval()
        weight, bias = torch.ones_like(conv.weight), torch.zeros_like(conv.bias)
        changed = with_parameters(conv, weight, bias)
        assert type(changed) is nn.Conv2d and not changed._modules
        assert torch.equal(changed.weight, weight)
        torch.testing.assert_close(changed(X), nn.functional.conv2d(X, weight, bias))
        assert parametrize.is_parametrized(conv, "weight")  # the given one stays

    def test_folding_batch_norm(self, parametrization):
        fused = Conv(parametrization(nn.Conv2d(4, 8, 3)), scrambled(nn.BatchNorm2d(8))).eval()
        before = fused(X)
        fused.fold_batch_norm()
        assert fused.bn is None
        torch.testing.assert_close(fused(X), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
)
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_of_any_dimension(kind, groups):
    dims = int(kind.__name__[-2])
    settings = {"stride": 2, "padding": 1, "output_padding": 1} if "Transpose" in kind.__name__ else {"dilation": 2}
    bn = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1](6)
    fused = scrambled(FusedConv(kind(4, 6, 3, groups=groups, **settings), bn)).double().eval()
    x = random_input(2, 4, *(5,) * dims).double()
    before = fused.bn(fused.conv(x))
    assert torch.equal(fused(x), before)
    fused.weight_fake_quant.quantizer = nn.Identity()  # computes with the folded weight
    torch.testing.assert_close(fused(x), before, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fused.train()(x), bn(fused.conv(x)), rtol=1e-12, atol=1e-12)
    fused.eval().weight_fake_quant.quantizer = None
    before, factors = bn(fused.conv(x)), torch.arange(1.0, 7.0).double()
    fused.scale_convolution(factors)
    fused.fold_batch_norm()
    assert type(fused.conv) is kind and fused.bn is None
    torch.testing.assert_close(fused(x), before * factors.reshape(-1, *(1,) * dims), rtol=1e-12, atol=1e-12)
    fused.scale_convolution(1 / factors)
    torch.testing.assert_close(fused(x), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            (nn.Linear(4, 8),),
            "conv is a module of class Linear; expected a Conv1d, a Conv2d, a Conv3d, a ConvTranspose1d",
        ),
        ((nn.Conv2d(4, 8, 3), nn.ReLU()), "bn is a module of class ReLU; expected a BatchNorm1d, a BatchNorm2d, a"),
    ],
)
def test_what_is_no_convolution_or_norm_is_refused(given, message):
    with pytest.raises(ArgumentError, match=message):
        Conv(*given)


@pytest.mark.parametrize("weight_trains", [True, False])
@pytest.mark.parametrize("bias_trains", [True, False])
def test_new_parameters_are_trained_if_the_old_ones_were(weight_trains, bias_trains):
    linear = nn.Linear(4, 3)
    linear.weight.requires_grad_(weight_trains)
    linear.bias.requires_grad_(bias_trains)
    changed = with_parameters(linear, linear.weight * 2, linear.bias)
    assert (changed.weight.requires_grad, changed.bias.requires_grad) == (weight_trains, bias_trains)


def test_a_first_bias_is_trained_if_the_weight_is():
    linear = nn.Linear(4, 3, bias=False).requires_grad_(False)
    assert not with_parameters(linear, linear.weight, torch.zeros(3)).bias.requires_grad


def test_parametrized_weights_that_are_to_be_quantized_become_parameters():
    conv, other = (parametrizations.weight_norm(nn.Conv2d(4, 8, 3)) for _ in range(2))
    model = nn.ModuleList([Conv(conv), Conv(conv), Conv(other)]).eval()
    for fused in model[:2]:
        fused.weight_fake_quant.quantizer = nn.Identity()
    before = [fused(X) for fused in model]
    fix_parametrized_weights(model)
    assert model[0].conv is model[1].conv and type(model[0].conv) is nn.Conv2d
    assert model[2].conv is other and parametrize.is_parametrized(other) and parametrize.is_parametrized(conv)
    for fused, wanted in zip(model, before, strict=True):
        torch.testing.assert_close(fused(X), wanted)


@pytest.mark.parametrize("part", ["conv", "bn"])
def test_batch_norm_is_not_folded_away_from_hooks(part):
    fused = conv_and_norm()
    getattr(fused, part).register_forward_hook(lambda module, args, output: output.abs())
    before = fused(X)
    fused.fold_batch_norm()
    assert fused.bn is not None
    assert torch.equal(fused(X), before)


def test_a_hook_that_watches_a_quantized_layer_does_not_keep_its_batch_norm():
    fused = conv_and_norm()
    fused.weight_fake_quant.quantizer = nn.Identity()
    before = fused(X)
    fused.conv.register_forward_hook(lambda module, args, output: None)
    fused.fold_batch_norm()
    assert fused.bn is None
    torch.testing.assert_close(fused(X), before)
