"""The table of activations, held against torch itself: each column says what the modules do."""

from typing import get_args

import pytest
import torch
from torch import nn

from embedl_deploy.graph import ACTIVATIONS, Activation, behaves_as
from embedl_deploy.graph.leaf_results import result_of_leaf
from embedl_deploy.graph.operators import operation_of_target
from embedl_deploy.modules import ActivationLike, is_homogeneous

ARGUMENTS = {nn.Threshold: (2.0, 0.0), nn.Softmax: (1,), nn.Softmin: (1,), nn.LogSoftmax: (1,), nn.GLU: (1,)}
INPUTS = {
    "contiguous": torch.randn(2, 4, 6, 8),
    "channels last": torch.randn(2, 4, 6, 8).to(memory_format=torch.channels_last),
    "transposed": torch.randn(2, 4, 6, 8).transpose(1, 3),
    "expanded": torch.randn(2, 1, 6, 8).expand(2, 4, 6, 8),
    "every second": torch.randn(4, 12, 16)[:, ::2, ::2],
}


def made(activation: Activation) -> nn.Module:
    return activation.module_class(*ARGUMENTS.get(activation.module_class, ())).eval()


each = pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda activation: activation.module_class.__name__)


def test_every_activation_of_torch_has_one_row() -> None:
    classes = [activation.module_class for activation in ACTIVATIONS]
    assert len(set(classes)) == len(classes)
    of_torch = {getattr(nn, name) for name in nn.modules.activation.__all__}
    assert of_torch - set(classes) == {nn.MultiheadAttention, nn.Softmax2d}  # no activation; no function equals it
    names = [name for activation in ACTIVATIONS for name in activation.operations]
    assert len(set(names)) == len(names)


@each
def test_operations_are_functions_of_torch(activation: Activation) -> None:
    for name in activation.operations:
        function = getattr(nn.functional, name, None) or getattr(nn.functional, name.replace("_", ""))
        assert operation_of_target(function) == name


@each
def test_shape_memory_and_places(activation: Activation) -> None:
    x, module = 3.0 * torch.randn(2, 4, 6, 8), made(activation)
    result = module(x)
    assert (result.shape == x.shape) == activation.keeps_shape
    assert result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()
    other = x.clone()
    other[0, 1] += 1.0
    if activation.keeps_shape:
        changed = (module(other) != result).nonzero()[:, 1].unique().tolist()
        assert (changed == [1]) == activation.elementwise


@each
def test_homogeneity(activation: Activation) -> None:
    x, module = torch.linspace(-9.0, 9.0, 64).reshape(1, 4, 16), made(activation)
    scaled = torch.allclose(module(3.0 * x), 3.0 * module(x))
    assert scaled == activation.homogeneous or isinstance(module, nn.RReLU)  # in training mode it draws
    assert is_homogeneous(module) == activation.homogeneous


@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS)
def test_what_is_told_of_a_result_without_computing_it(x: torch.Tensor) -> None:
    for module in map(made, ACTIVATIONS):
        told, result = result_of_leaf(module, (x,), {}), module(x)
        if told is not None:
            assert (told.shape, told.stride(), told.dtype) == (result.shape, result.stride(), result.dtype), module
    assert result_of_leaf(nn.Mish(), (x,), {}) is not None


@each
def test_what_is_written_out_is_of_the_class(activation: Activation) -> None:
    for make in activation.written_out:
        assert behaves_as(make(), activation.module_class)


def test_what_fusions_take() -> None:
    fused = {activation.module_class for activation in ACTIVATIONS if activation.is_fused}
    assert fused == set(get_args(ActivationLike))
    assert {nn.Sigmoid, nn.Tanh, nn.Mish}.isdisjoint(fused)
