"""Convolutions with what TensorRT computes in the same kernel."""

import pytest
import torch
from torch import nn

from embedl_deploy.modules import PaddedConv2d
from embedl_deploy.tensorrt.modules import (
    FusedConvBN,
    FusedConvBNAct,
    FusedConvBNActMaxPool,
    FusedConvBNAddAct,
    FusedConvBNAddReLU,
    FusedConvBNReLU,
    FusedConvBNReLUMaxPool,
)
from support.agreement import assert_close, run
from support.fused_modules import check_fused_module, check_input_stubs, check_weight_stub
from support.nets import random_input
from support.quantizers import RoundTo

X = random_input(2, 4, 8, 8)


def parts(bn: bool = True, **settings: int) -> tuple[nn.Conv2d, nn.BatchNorm2d | None]:
    return nn.Conv2d(4, 8, 3, padding=1, **settings), nn.BatchNorm2d(8) if bn else None


def test_the_names_of_0_6_are_the_same_classes() -> None:
    assert FusedConvBNAct is FusedConvBNReLU
    assert FusedConvBNActMaxPool is FusedConvBNReLUMaxPool
    assert FusedConvBNAddAct is FusedConvBNAddReLU


def test_inputs_to_quantize_is_known_without_an_instance() -> None:
    assert FusedConvBN.inputs_to_quantize == FusedConvBNReLU.inputs_to_quantize == frozenset({0})
    assert FusedConvBNReLUMaxPool.inputs_to_quantize == frozenset({0})
    assert FusedConvBNAddReLU.inputs_to_quantize == frozenset({0, 1})


@pytest.mark.parametrize("bn", [True, False], ids=["batch norm", "no batch norm"])
@pytest.mark.parametrize("kind", [FusedConvBN, FusedConvBNReLU, FusedConvBNReLUMaxPool, FusedConvBNAddReLU])
def test_computes_what_its_parts_compute(kind: type, bn: bool) -> None:
    conv, norm = parts(bn)
    act, pool = nn.SiLU(inplace=True), nn.MaxPool2d(2)
    after = {
        FusedConvBN: (),
        FusedConvBNReLU: (act,),
        FusedConvBNReLUMaxPool: (act, pool),
        FusedConvBNAddReLU: (act,),
    }[kind]
    fused = kind(conv, norm, *after)
    originals = nn.ModuleList([conv, *([norm] if norm else []), *after])
    inputs = (X, random_input(2, 8, 8, 8, seed=2)) if kind is FusedConvBNAddReLU else (X,)

    def reference(x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        x = conv(x)
        x = x if norm is None else norm(x)
        x = x if residual is None else x + residual
        for module in after:
            x = module(x)
        return x

    check_fused_module(fused, reference, originals, inputs)
    check_input_stubs(fused, reference, inputs, range(len(inputs)))
    check_weight_stub(fused, conv.weight, inputs, norm)
    assert fused.bn_foldable is bn
    assert ("bn foldable" in repr(fused)) is bn


def test_a_sum_keeps_the_residual_as_it_was() -> None:
    fused = FusedConvBNAddReLU(*parts(), nn.ReLU(inplace=True)).eval()
    residual = random_input(2, 8, 8, 8)
    before = residual.clone()
    fused(X, residual)
    assert torch.equal(residual, before)


@pytest.mark.parametrize(
    ("conv", "quantized"),
    [
        (nn.Conv2d(8, 8, 3, padding=1, groups=2), True),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), True),
        (nn.Conv2d(8, 8, 3, padding=1, groups=4), False),
    ],
    ids=["4 channels per group", "depthwise", "2 channels per group"],
)
def test_a_grouped_convolution_without_int8_kernels_opts_out(conv: nn.Conv2d, quantized: bool) -> None:
    x, residual = random_input(2, 8, 8, 8), random_input(2, 8, 8, 8, seed=2)
    for fused, inputs in (
        (FusedConvBN(conv), (x,)),
        (FusedConvBNReLU(conv, None, nn.ReLU()), (x,)),
        (FusedConvBNReLUMaxPool(conv, None, nn.ReLU(), nn.MaxPool2d(2)), (x,)),
        (FusedConvBNAddReLU(conv, nn.BatchNorm2d(8), nn.ReLU()), (x, residual)),
    ):
        assert hasattr(fused, "weight_fake_quant") is quantized
        assert set(fused.input_quant_stubs) == (set(range(len(inputs))) if quantized else set())
        assert run(fused.eval(), inputs).shape[0] == 2


def test_a_padded_convolution_pads_with_a_quantized_weight_too() -> None:
    conv = PaddedConv2d.of(nn.Conv2d(4, 8, 3, stride=2), (0, 1, 0, 1))
    fused = FusedConvBN(conv)
    plain = fused(X)
    fused.weight_fake_quant.quantizer = RoundTo(1e-6)
    assert plain.shape == (2, 8, 4, 4)
    assert_close(fused(X), plain, 1e-4)


def test_bn_foldable_may_be_given_and_must_be_right() -> None:
    conv, norm = parts()
    assert FusedConvBN(conv, norm, bn_foldable=True).bn_foldable
    assert not FusedConvBN(conv, bn_foldable=False).bn_foldable
    with pytest.raises(ValueError, match="bn_foldable is True, but bn is None; leave it out or make them agree"):
        FusedConvBN(conv, None, bn_foldable=True)


def test_nothing_is_folded() -> None:
    conv, norm = parts()
    fused = FusedConvBN(conv, norm)
    assert fused.conv is conv and fused.bn is norm
