"""A convolution with four paddings of its own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.graph import behaves_as
from embedl_deploy.modules import PaddedConv2d, symbolic_trace
from support.nets import random_input, scrambled

X = random_input(2, 4, 6, 7)


def conv_of(**settings):
    return scrambled(nn.Conv2d(4, 6, 3, **settings))


@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"dilation": (1, 2)}, {"groups": 2}, {"bias": False}])
@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (1, 1, 2, 2), (0, 0, 0, 0), (3, 0, 0, 0), (0, 0, 1, 4)])
def test_equals_padding_and_convolving(settings, sides):
    conv = conv_of(**settings)
    padded = PaddedConv2d.of(conv, sides)
    torch.testing.assert_close(padded(X), conv(F.pad(X, sides)), rtol=1e-5, atol=1e-5)
    assert isinstance(padded, PaddedConv2d) is (sides[0] != sides[1] or sides[2] != sides[3])


@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (1, 1, 1, 1)])
def test_holds_the_very_parameters(sides):
    conv = conv_of()
    padded = PaddedConv2d.of(conv, sides)
    assert padded.weight is conv.weight
    assert padded.bias is conv.bias
    assert list(padded.state_dict()) == ["weight", "bias"]


def test_no_random_number_is_drawn():
    conv, before = conv_of(), torch.get_rng_state()
    PaddedConv2d.of(conv, (0, 1, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)


def test_is_a_convolution_for_patterns_and_one_node_for_tracers():
    padded = PaddedConv2d.of(conv_of(), (0, 1, 0, 1))
    assert behaves_as(padded, nn.Conv2d)
    graph = symbolic_trace(nn.Sequential(padded)).graph
    assert [node.op for node in graph.nodes] == ["placeholder", "call_module", "output"]


def test_copies_and_prints():
    padded = PaddedConv2d.of(conv_of(stride=2), (0, 1, 2, 3))
    duplicate = copy.deepcopy(padded)
    assert torch.equal(duplicate(X), padded(X))
    assert duplicate.weight is not padded.weight
    assert "sides=(0, 1, 2, 3)" in repr(padded)
    assert "stride=(2, 2)" in repr(padded)


def test_gradients_are_those_of_padding_and_convolving():
    conv = conv_of()
    padded = PaddedConv2d.of(conv, (0, 1, 2, 0))
    padded(X).square().sum().backward()
    got, conv.weight.grad = conv.weight.grad, None
    conv(F.pad(X, (0, 1, 2, 0))).square().sum().backward()
    torch.testing.assert_close(got, conv.weight.grad, rtol=1e-4, atol=1e-4)
