"""What a tracer keeps whole, what it looks into, and that it records writes."""

import operator

import pytest
import torch
from torch import nn

from embedl_deploy.modules import ConvertedModule, FusedModule, LeafTracer, symbolic_trace


class Plain(nn.Module):
    def forward(self, x):
        return x * 2


class Fused(FusedModule):
    def forward(self, x):
        return x * 2


class Converted(ConvertedModule):
    def forward(self, x):
        return x * 2


class OwnForward(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


class OwnInit(nn.Conv2d):
    def __init__(self):
        super().__init__(1, 1, 1)


def ops(module, **settings):
    return [node.op for node in symbolic_trace(nn.Sequential(module), **settings).graph.nodes][1:-1]


@pytest.mark.parametrize("make", [Fused, Converted, OwnInit, lambda: nn.ReLU(), lambda: nn.Conv2d(1, 1, 1),
                                  lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 1)),
                                  lambda: nn.MultiheadAttention(4, 2)])  # fmt: skip
def test_leaves(make):
    module = make()
    assert LeafTracer().is_leaf_module(module, "m")


@pytest.mark.parametrize("make", [Plain, lambda: OwnForward(1, 1, 1), lambda: nn.Sequential(nn.ReLU())])
def test_looked_into(make):
    assert not LeafTracer().is_leaf_module(make(), "m")


def test_a_subclass_with_a_forward_of_its_own_becomes_visible():
    assert "call_module" not in ops(Plain())
    assert ops(OwnForward(1, 1, 1))[-1] == "call_function"


def test_declared_leaves():
    assert ops(Plain()) == ["call_function"]
    assert ops(Plain(), leaf_modules=[Plain]) == ["call_module"]


def test_forward_replaced_on_an_instance_is_looked_into():
    relu = nn.ReLU()
    relu.forward = lambda x: x * 3
    assert ops(relu) == ["call_function"]


def test_modules_are_shared_and_concrete_arguments_fix_inputs():
    class Steered(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x, flag=True):
            return self.act(x) if flag else x

    model = Steered()
    traced = symbolic_trace(model, {"flag": False})
    assert [node.op for node in traced.graph.nodes if node.op.startswith("call_module")] == []
    assert symbolic_trace(model, {"flag": True}).act is model.act


def test_a_function_can_be_traced():
    traced = symbolic_trace(lambda x: torch.relu(x))
    assert torch.equal(traced(torch.tensor([-1.0, 1.0])), torch.tensor([0.0, 1.0]))


def test_the_innermost_module_that_fails_is_remembered():
    class Failing(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    tracer = LeafTracer()
    with pytest.raises(torch.fx.proxy.TraceError):
        tracer.trace(nn.Sequential(nn.ReLU(), nn.Sequential(Failing())))
    assert tracer.failed_module == "1.0"


class TestAugmentedAssignment:
    """``x += y`` writes into ``x``, and whoever else holds ``x`` sees it."""

    @pytest.mark.parametrize("function", [operator.iadd, operator.isub, operator.imul, operator.itruediv,
                                          operator.ifloordiv, operator.imod, operator.ipow])  # fmt: skip
    def test_is_recorded(self, function):
        class Net(nn.Module):
            def forward(self, x, y):
                z = x * 1
                seen = z.view(-1)
                z = function(z, y)
                return z, seen

        x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 2.0])
        wanted, got = Net()(x, y), symbolic_trace(Net())(x, y)
        assert torch.equal(wanted[0], got[0])
        assert torch.equal(wanted[1], got[1])

    @pytest.mark.parametrize("function", [operator.iand, operator.ior, operator.ixor, operator.ilshift])
    def test_of_integers(self, function):
        class Net(nn.Module):
            def forward(self, x, y):
                seen = x[...]
                x = function(x, y)
                return x, seen

        x, y = torch.tensor([1, 2, 3]), torch.tensor([3, 1, 1])
        wanted, got = Net()(x.clone(), y), symbolic_trace(Net())(x.clone(), y)
        assert all(map(torch.equal, wanted, got))

    def test_is_named_as_the_sum_it_is(self):
        def forward(x, y):
            x += y
            return x

        assert [node.name for node in symbolic_trace(forward).graph.nodes] == ["x", "y", "add", "output"]

    def test_of_sizes_is_arithmetic(self):
        def forward(x):
            size = x.size(0)
            size += 1
            return x.new_zeros(size)

        assert symbolic_trace(forward)(torch.zeros(2)).shape == (3,)
