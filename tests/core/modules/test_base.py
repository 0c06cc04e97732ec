"""Fused modules and the places of their quantizers."""

import copy

import pytest
import torch
from torch import nn

from embedl_deploy.graph import behaves_as
from embedl_deploy.modules import ConvertedModule, FusedModule, QuantStub, WeightFakeQuantize
from support.nets import random_input
from support.quantizers import RoundTo


class Sum(FusedModule):
    inputs_to_quantize = {1, 0}

    def forward(self, x, y):
        return self.quantize_input(0, x) + self.quantize_input(1, y)


class Nothing(FusedModule):
    def forward(self, x):
        return self.quantize_input(0, x)


class OptsOut(Sum):
    def __init__(self):
        super().__init__()
        self.input_quant_stubs = {}


X, Y = random_input(3, seed=1), random_input(3, seed=2)


class TestStubs:
    def test_one_for_each_input_in_order(self):
        stubs = Sum().input_quant_stubs
        assert list(stubs) == [0, 1]
        assert all(isinstance(stub, QuantStub) and not stub.enabled for stub in stubs.values())

    def test_none_by_default(self):
        assert Nothing().input_quant_stubs == {}
        assert FusedModule.inputs_to_quantize == frozenset()
        assert Nothing()(X) is X

    def test_are_sub_modules(self):
        module = Sum()
        assert dict(module.named_children()) == {
            f"input_quant_stub_{i}": s for i, s in module.input_quant_stubs.items()
        }
        assert module.state_dict() == {}

    def test_instances_do_not_share_them(self):
        assert Sum().input_quant_stubs[0] is not Sum().input_quant_stubs[0]

    def test_copies_have_their_own(self):
        module = Sum()
        assert copy.deepcopy(module).input_quant_stubs[0] is not module.input_quant_stubs[0]
        assert list(copy.deepcopy(module).input_quant_stubs) == [0, 1]

    def test_opting_out_by_assigning_none(self):
        module = OptsOut()
        assert module.input_quant_stubs == {}
        assert list(module.children()) == []
        assert torch.equal(module(X, Y), X + Y)
        assert list(Sum().input_quant_stubs) == [0, 1], "the class is not changed"

    def test_assigning_replaces(self):
        module, stub = Sum(), QuantStub()
        module.input_quant_stubs = {1: stub}
        assert module.input_quant_stubs == {1: stub}
        module.input_quant_stubs = {0: stub, 1: stub}
        assert module.input_quant_stubs == {0: stub, 1: stub}

    def test_the_dictionary_is_a_view_that_cannot_be_written_by_accident(self):
        module = Sum()
        module.input_quant_stubs.clear()
        assert list(module.input_quant_stubs) == [0, 1]

    @pytest.mark.parametrize("index", [0, 1])
    def test_a_quantizer_sees_its_input_and_no_other(self, index):
        module, quantizer = Sum(), RoundTo()
        module.input_quant_stubs[index].quantizer = quantizer
        inputs = [X, Y]
        inputs[index] = quantizer.round(inputs[index])
        assert torch.equal(module(X, Y), inputs[0] + inputs[1])
        assert quantizer.calls == 1


class TestQuantStub:
    @pytest.mark.parametrize("cls", [QuantStub, WeightFakeQuantize])
    def test_empty_returns_the_same_object(self, cls):
        stub = cls()
        assert stub(X) is X
        assert not stub.enabled
        assert "empty" in repr(stub)

    def test_filled_and_emptied(self):
        stub = QuantStub(RoundTo())
        assert stub.enabled
        assert torch.equal(stub(X), RoundTo().round(X))
        assert "empty" not in repr(stub)
        stub.quantizer = None
        assert stub(X) is X

    def test_a_quantizers_state_is_saved(self):
        quantizer = nn.Module()
        quantizer.register_buffer("scale", torch.ones(1))
        assert list(QuantStub(quantizer).state_dict()) == ["quantizer.scale"]


def test_a_converted_module_stands_for_its_base():
    class Converted(ConvertedModule, nn.Linear):
        def forward(self, x):
            return super().forward(x) * 1

    class Overridden(nn.Linear):
        def forward(self, x):
            return super().forward(x) * 1

    assert behaves_as(Converted(2, 2), nn.Linear)
    assert not behaves_as(Overridden(2, 2), nn.Linear)
