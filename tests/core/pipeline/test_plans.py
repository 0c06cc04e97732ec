"""Plans: what is to be applied can be read, asked about and switched off."""

import pytest
import torch
from torch import nn

from embedl_deploy import (
    apply_transformation_plan,
    get_transformation_plan,
    load_transformation_plan,
    transform,
)
from embedl_deploy.errors import PlanError
from embedl_deploy.patterns import Pattern
from support.small_patterns import PATTERNS, FusedChain, QConv


class TestPlans:
    def test_disable_one(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        match = plan.get("relu", "ConvBNActPattern")
        assert repr(match) == "PatternMatch(ConvBNActPattern at 'relu', apply=True)"
        match.apply = False
        result = apply_transformation_plan(plan)
        assert result.matches["relu"]["ConvBNActPattern"].reason == "switched off in the plan"
        assert result.report["applied_count"] == 3  # two calls of the block, and the tail
        assert "head" in result.report["unfused"]

    def test_what_changes_a_value_in_place_is_listed_though_nobody_reads_its_result(self):
        class Doubling(nn.Module):
            def forward(self, x):
                y = x + 1
                y.mul_(2.0)
                return y

        report = transform(Doubling(), patterns=PATTERNS).report
        assert report["unfused"] == {"add": "add", "mul_": "mul_"}

    def test_disable_lets_the_next_move_up(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        (promoted,) = plan.disable("relu", "ConvBNActPattern")
        assert (promoted.pattern_name, promoted.node_name) == ("ConvPattern", "head")
        result = apply_transformation_plan(plan)
        assert result.report["applied_count"] == 4
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_overlap_is_a_reason(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        match = plan.get("head", "ConvPattern")
        assert not match.apply
        assert match.reason == "overlaps ConvBNActPattern at relu"

    def test_two_switched_on_for_one_node_the_first_has_it(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        plan.get("head", "ConvPattern").apply = True
        result = apply_transformation_plan(plan)
        assert "overlaps" in result.matches["head"]["ConvPattern"].reason
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_only_once(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        apply_transformation_plan(plan)
        with pytest.raises(PlanError, match="applied before"):
            apply_transformation_plan(plan)

    def test_model_is_the_captured_graph(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        x = torch.randn(1, 4, 8, 8)
        for a, b in zip(plan.model(x), net(x), strict=True):
            assert torch.equal(a, b)
        apply_transformation_plan(plan)
        assert not any(isinstance(m, QConv) for m in plan.model.modules())

    def test_unknown_entries(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        with pytest.raises(PlanError, match="no match ends at 'nowhere'"):
            plan.get("nowhere", "ConvPattern")
        with pytest.raises(PlanError, match="there are"):
            plan.get("relu", "NoPattern")
        with pytest.raises(PlanError, match="no node or module 'nowhere'"):
            plan.why_not("nowhere")
        with pytest.raises(PlanError, match="no pattern 'NoPattern'"):
            plan.why_not("head", "NoPattern")

    def test_why_not_by_module_path_and_for_a_near_miss(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        assert "block.conv: ConvBNActPattern applies (block_conv → block_bn → block_act)" in plan.why_not("block.conv")
        (line,) = plan.why_not("tail", "ConvBNActPattern")
        assert line == "tail: ConvBNActPattern does not match: tail is followed by the model's output, " \
            "expected ReLU or ReLU6 or LeakyReLU or ELU or GELU or SiLU or Hardswish or Hardsigmoid"  # fmt: skip
        assert plan.why_not("add") == ["add: ConvAddActPattern does not match: " + near_miss_of_add()]

    @pytest.mark.parametrize("trace", ["symbolic", "export"])
    def test_a_container_means_what_is_inside(self, net, trace):
        plan = get_transformation_plan(net, torch.randn(1, 4, 8, 8), patterns=PATTERNS, trace=trace)
        *matches, behind = [match for match in plan if match.pattern_name == "ConvBNActPattern"]
        assert len(matches) == 2  # the model calls the block twice
        taken = [f"block: ConvBNActPattern applies ({' → '.join(match.node_names)})" for match in matches]
        assert set(taken) < set(plan.why_not("block"))
        with pytest.raises(PlanError) as caught:
            plan.get("block", "ConvBNActPattern")
        ends = "; ".join(f"ConvBNActPattern takes it and ends at {match.node_name!r}" for match in matches)
        assert f"no match ends at 'block'; {ends}." in str(caught.value)
        moved_up = plan.disable("block", "ConvBNActPattern")
        assert behind.apply and not any(match.apply for match in matches)
        assert [match.pattern_name for match in moved_up] == ["ConvPattern", "ConvPattern"]

    def test_near_names(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        with pytest.raises(PlanError, match=r"no match ends at 'blok'\. Near it: 'block'"):
            plan.disable("blok", "ConvBNActPattern")
        with pytest.raises(PlanError, match=r"no node or module 'block\.cnv'\. Near it: 'block\.conv'"):
            plan.why_not("block.cnv")

    def test_printed(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        text = str(plan)
        assert "Plan for ResidualNet (symbolic capture, patterns given): 4 of 7 matches to apply, 0 declined" in text
        assert "block_conv → block_bn → block_act" in text
        report = str(apply_transformation_plan(plan).report)
        assert "ResidualNet: 4 rewrites applied" in report
        assert "Unfused: add ×1 (add_1)" in report or "Unfused: add ×1 (add)" in report


def near_miss_of_add():
    return "add comes after relu (ReLU) and block_act_1 (ReLU), expected BatchNorm2d"


class TestTwins:
    """Patterns of one name, such as a backend's and that of an extension."""

    @staticmethod
    def twins():
        class Twin(Pattern):
            tree = (nn.Linear, nn.ReLU)
            graft = FusedChain

        first = Twin()
        other = type("Twin", (Twin,), {"__module__": "other"})()
        return nn.Sequential(nn.Linear(3, 3), nn.ReLU()), [first, other]

    @pytest.mark.parametrize("is_conversion", [False, True])
    def test_the_first_wins(self, is_conversion):
        model, patterns = self.twins()
        for pattern in patterns:
            pattern.is_conversion = is_conversion
        result = transform(model, patterns=patterns)
        applied = [match for match in result.report.matches if match.replaced_by]
        assert [match.pattern for match in applied] == patterns[:1]
        (skipped,) = result.report["skipped"]
        wanted = f"overlaps Twin at _1: an earlier pattern of that name (from {__name__}) took it"
        assert skipped["reason"] == wanted

    def test_the_same_pattern_twice(self):
        model, patterns = self.twins()
        assert transform(model, patterns=patterns[:1] * 2).report["applied_count"] == 1

    def test_of_two_the_one_that_is_on_is_meant(self):
        model, patterns = self.twins()
        plan = get_transformation_plan(model, patterns=patterns)
        plan.disable("_1", "Twin")
        assert plan.get("_1", "Twin#2").apply
        assert plan.disable("_1", "Twin") == []
        assert not plan.get("_1", "Twin#2").apply

    def test_the_second_can_be_had_instead(self):
        model, patterns = self.twins()
        plan = get_transformation_plan(model, patterns=patterns)
        assert list(plan.matches["_1"]) == ["Twin", "Twin#2"]
        assert plan.disable("_1", "Twin") == [plan.get("_1", "Twin#2")]
        again = load_transformation_plan(plan.to_json(), model, patterns=patterns)
        for made in (plan, again):
            matches = apply_transformation_plan(made).report.matches
            assert [match.pattern for match in matches if match.replaced_by] == patterns[1:]
