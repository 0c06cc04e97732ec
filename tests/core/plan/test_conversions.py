"""Conversions run until none matches any more, or are stopped."""

import time

import pytest
import torch
from torch import nn

from embedl_deploy import apply_transformation_plan, get_transformation_plan, transform
from embedl_deploy.conversions import FoldZeroPadIntoConvPattern
from embedl_deploy.errors import ConversionLoopError
from embedl_deploy.modules import PaddedConv2d
from embedl_deploy.patterns import Pattern, replace_tree
from support.nets import net, random_input


class Swap(Pattern):
    """One module for another of no parameters."""

    is_conversion = True

    def __init__(self, found, *put):
        self.tree, self.put = (found,), put

    @property
    def name(self):
        return f"Swap{self.tree[0].__name__}"

    def replace(self, pattern_match):
        return replace_tree(pattern_match, [cls() for cls in self.put])


class TestFixedPoint:
    def test_a_chain_of_pads_folds_one_a_round(self):
        model = nn.Sequential(*(nn.ZeroPad2d((i, 0, 0, 1)) for i in range(4)), nn.Conv2d(2, 3, 3)).eval()
        plan = get_transformation_plan(model, patterns=[FoldZeroPadIntoConvPattern()])
        assert len([match for match in plan if match.apply]) == 4
        result = transform(model, patterns=[FoldZeroPadIntoConvPattern()])
        assert result.report["applied_count"] == 4
        (conv,) = [node for node in result.model.graph.nodes if node.op == "call_module"]
        module = result.model.get_submodule(conv.target)
        assert isinstance(module, PaddedConv2d)
        assert module.sides == (6, 0, 0, 4)
        assert result.verify(random_input(1, 2, 5, 5)).max_rel < 1e-6

    def test_one_conversion_feeds_another(self):
        chain = [Swap(nn.Sigmoid, nn.Tanh), Swap(nn.Tanh, nn.ReLU)]
        for patterns in (chain, chain[::-1]):
            result = transform(nn.Sequential(nn.Sigmoid()), patterns=patterns)
            assert [type(m) for m in result.model.children()] == [nn.ReLU]
            assert result.report["applied_count"] == 2

    def test_one_module_becomes_a_chain_of_others(self):
        patterns = [Swap(nn.Sigmoid, nn.Tanh, nn.GELU, nn.Softplus)]
        result = transform(nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.ELU()), patterns=patterns)
        called = [result.model.get_submodule(n.target) for n in result.model.graph.nodes if n.op == "call_module"]
        assert [type(module) for module in called] == [nn.ReLU, nn.Tanh, nn.GELU, nn.Softplus, nn.ELU]

    def test_nothing_to_convert_is_one_round(self):
        plan = get_transformation_plan(nn.Sequential(nn.ReLU()), patterns=[Swap(nn.Tanh, nn.ReLU)])
        assert list(plan) == []

    def test_a_switched_off_step_stops_the_chain(self):
        chain = [Swap(nn.Sigmoid, nn.Tanh), Swap(nn.Tanh, nn.ReLU)]
        plan = get_transformation_plan(nn.Sequential(nn.Sigmoid()), patterns=chain)
        next(match for match in plan if match.pattern_name == "SwapTanh").apply = False
        model = apply_transformation_plan(plan).model
        assert [type(m) for m in model.children()] == [nn.Tanh]


class TestLoops:
    @pytest.mark.parametrize(
        ("patterns", "names"),
        [
            ([Swap(nn.Tanh, nn.Tanh)], ["'SwapTanh'"]),
            ([Swap(nn.Tanh, nn.Sigmoid), Swap(nn.Sigmoid, nn.Tanh)], ["'SwapTanh'", "'SwapSigmoid'"]),
            ([Swap(nn.Tanh, nn.Tanh, nn.Tanh)], ["'SwapTanh'"]),
        ],
        ids=["itself", "there and back", "growing"],
    )
    def test_raise_and_name_the_patterns(self, patterns, names):
        model = nn.Sequential(*(nn.Tanh() for _ in range(3)))
        start = time.perf_counter()
        with pytest.raises(ConversionLoopError) as caught:
            transform(model, patterns=patterns)
        assert time.perf_counter() - start < 30
        assert any(name in str(caught.value) for name in names)
        assert "never settle" in str(caught.value)
        assert [type(m) for m in model] == [nn.Tanh] * 3

    def test_there_and_back_in_one_round_names_both(self):
        patterns = [Swap(nn.Tanh, nn.Sigmoid), Swap(nn.Sigmoid, nn.Tanh)]
        with pytest.raises(ConversionLoopError, match=r"'SwapTanh', 'SwapSigmoid'"):
            transform(nn.Sequential(nn.Tanh(), nn.Sigmoid()), patterns=patterns)

    def test_a_loop_beside_a_conversion_that_settles_names_only_the_loop(self):
        patterns = [Swap(nn.SiLU, nn.ReLU), Swap(nn.Tanh, nn.Tanh)]
        with pytest.raises(ConversionLoopError, match="'SwapTanh'") as caught:
            transform(nn.Sequential(nn.SiLU(), nn.Tanh()), patterns=patterns)
        assert "SwapSiLU" not in str(caught.value)

    def test_a_conversion_that_gives_the_same_name_is_still_a_loop(self):
        """Each round's match has the node of the round before under another name, or the same."""

        def forward(self, x):
            return self.t(x)

        with pytest.raises(ConversionLoopError):
            transform(net(forward, t=nn.Tanh()), torch.randn(2), patterns=[Swap(nn.Tanh, nn.Tanh)])
