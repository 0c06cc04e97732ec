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
        return x + y


class Nothing(FusedModule):
    def forward(self, x):
        return x


class QuantizesInside(FusedModule):
    inputs_to_quantize = {0}

    def __init__(self):
        super().__init__()
        self.doubled_quant = QuantStub()
        self.input_quant_stubs = {0: self.doubled_quant}

    def forward(self, x):
        return self.doubled_quant(2 * x)


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

    def test_are_no_sub_modules(self):
        module = Sum()
        assert module.input_quant_stubs
        assert list(module.children()) == []
        assert module.state_dict() == {}

    def test_are_made_once(self):
        module = Sum()
        assert module.input_quant_stubs is module.input_quant_stubs
        assert FusedModule._stubs is None

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

    def test_the_given_dictionary_is_copied(self):
        module, given = Sum(), {1: QuantStub()}
        module.input_quant_stubs = given
        given.clear()
        assert list(module.input_quant_stubs) == [1]

    def test_forward_does_not_look_at_them(self):
        module, quantizer = Sum(), RoundTo()
        module.input_quant_stubs[0].quantizer = quantizer
        assert torch.equal(module(X, Y), X + Y)
        assert quantizer.calls == 0

    def test_one_that_is_a_sub_module_is_called(self):
        module = QuantizesInside()
        assert [name for name, _ in module.named_children()] == ["doubled_quant"]
        module.input_quant_stubs[0].quantizer = quantizer = RoundTo()
        assert torch.equal(module(X), quantizer.round(2 * X))

    def test_a_copys_sub_module_is_its_own_stub(self):
        module = copy.deepcopy(QuantizesInside())
        assert module.input_quant_stubs[0] is module.doubled_quant


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

    def test_a_range_that_is_known_beforehand(self):
        assert QuantStub().amax is None
        assert QuantStub(amax=1.0).amax == 1.0

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
