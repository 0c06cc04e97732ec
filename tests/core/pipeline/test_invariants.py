"""What holds of every transformation: the user's model is untouched, outputs and sharing are kept."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import (
    get_transformation_plan,
    transform,
)
from support.small_patterns import PATTERNS, ConvBNActPattern, QConv


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


class TestUserModelIsUntouched:
    @pytest.mark.parametrize("train", [False, True])
    def test_parameters_buffers_mode_hooks_rng(self, net, train):
        net.train(train)
        calls = []
        net.block.conv.register_forward_hook(lambda module, args, output: calls.append(module))
        net.marker = object()
        before, rng, attributes = state_of(net), torch.get_rng_state(), set(vars(net))
        modules = {name: (type(m), m.training, list(m._forward_hooks)) for name, m in net.named_modules()}
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        result = transform(net, x, patterns=PATTERNS)
        result.verify(x)
        assert torch.equal(torch.get_rng_state(), rng)
        after = state_of(net)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
        assert set(vars(net)) == attributes
        assert {n: (type(m), m.training, list(m._forward_hooks)) for n, m in net.named_modules()} == modules

    def test_result_shares_no_memory_with_it(self, net):
        result = transform(net, patterns=PATTERNS)
        theirs = {p.data_ptr() for p in net.parameters()}
        assert not theirs & {p.data_ptr() for p in result.model.parameters()}

    def test_inputs_are_not_overwritten_by_verify(self):
        class InPlace(nn.Module):
            def forward(self, x):
                return x.relu_()

        x = torch.randn(3)
        kept = x.clone()
        transform(InPlace(), patterns=PATTERNS).verify(x)
        assert torch.equal(x, kept)

    def test_python_state_that_tracing_changes(self):
        class Counting(nn.Module):
            calls = 0

            def forward(self, x):
                self.calls += 1
                return x + 1

        model = Counting()
        transform(model, patterns=[])
        assert model.calls == 0


class TestOutputsAreKept:
    def test_eval(self, net):
        result = transform(net, patterns=PATTERNS)
        assert result.verify(torch.randn(2, 4, 8, 8)) == (0, 0)

    def test_train_with_live_batch_norm(self, net):
        net.train()
        result = transform(net, patterns=PATTERNS)
        reference = copy.deepcopy(net)
        x = torch.randn(2, 4, 8, 8)
        for a, b in zip(reference(x), result.model(x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        fused = next(m for m in result.model.modules() if isinstance(m, nn.BatchNorm2d))
        assert torch.equal(fused.running_mean, reference.block.bn.running_mean)

    def test_double_precision(self, net):
        assert transform(net.double(), patterns=PATTERNS).verify(torch.randn(2, 4, 8, 8).double()).max_rel == 0

    def test_training_flag_can_be_switched(self, net):
        model = transform(net, patterns=PATTERNS).model
        assert not any(m.training for m in model.modules())
        model.train()
        assert all(m.training for m in model.modules())


class TestSharing:
    def test_block_called_twice_is_one_module(self, net):
        result = transform(net, patterns=[ConvBNActPattern()])
        targets = [n.target for n in result.model.graph.nodes if n.op == "call_module" and "block" in n.target]
        assert len(targets) == 2
        assert len(set(targets)) == 1
        assert isinstance(result.model.get_submodule(targets[0]), QConv)

    def test_tied_weights_stay_tied(self, net):
        model = transform(net, patterns=PATTERNS).model
        ones = [p for p in model.parameters() if p.shape == (4, 4, 1, 1)]
        assert len(ones) == 1  # parameters() gives each tensor once

    def test_functional_use_of_a_tied_weight(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 1, bias=False)

            def forward(self, x):
                return F.conv2d(F.relu(self.conv(x)), self.conv.weight)

        result = transform(Tied().eval(), patterns=PATTERNS)
        assert result.report["applied_count"] == 2
        assert len(list(result.model.parameters())) == 1
        assert result.verify(torch.randn(1, 4, 5, 5)).max_abs == 0


class TestSecondRun:
    def test_changes_nothing(self, net):
        first = transform(net, patterns=PATTERNS)
        second = transform(first.model, patterns=PATTERNS)
        assert second.report["applied_count"] == 0
        assert [n.name for n in second.model.graph.nodes] == [n.name for n in first.model.graph.nodes]


class TestInPlaceOperations:
    """A rewrite must not move a read past a write."""

    @pytest.mark.parametrize(
        "forward",
        [
            lambda self, x: (lambda y: self.c(y).relu_() + y)(x * 1),
            lambda self, x: (lambda y: F.relu(y, inplace=True) + y)(self.c(x)),
            lambda self, x: (lambda y: (y.add_(1), F.relu(self.c(y)), y)[1:])(x * 1),
            lambda self, x: (lambda y: (lambda c: (y.mul_(2), F.relu(c) + y))(self.c(y)))(x * 1),
            lambda self, x: (lambda y, v: (self.c(y), v.mul_(3), F.relu(self.d(y)))[::2])(
                *(lambda y: (y, y.view(-1)))(x * 1)
            ),
        ],
    )
    def test_outputs_agree(self, forward):
        class InPlace(nn.Module):
            def __init__(self):
                super().__init__()
                self.c, self.d = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        InPlace.forward = forward
        result = transform(InPlace().eval(), patterns=PATTERNS)
        assert result.verify(torch.randn(2, 4, 3, 3)).max_abs == 0

    def test_hazard_is_named(self):
        class InPlace(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 1)

            def forward(self, x):
                y = x * 1
                z = self.conv(y)
                y.add_(1)
                return F.relu(z), y

        plan = get_transformation_plan(InPlace(), patterns=[ConvBNActPattern()])
        assert plan.why_not("conv") == [
            "conv: ConvBNActPattern declined: add_ changes mul in place between conv and the end"
        ]
