"""Answers of one pattern, which the answers of others may name."""

import pytest
from torch import nn

from embedl_deploy import get_transformation_plan
from embedl_deploy.errors import PlanError
from embedl_deploy.patterns import Pattern


class LinReLUPattern(Pattern):
    tree = (nn.Linear, nn.ReLU)
    graft = nn.Sequential


class LinPattern(Pattern):
    tree = (nn.Linear,)
    graft = nn.Sequential


@pytest.fixture
def plan():
    return get_transformation_plan(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), patterns=[LinReLUPattern(), LinPattern()])


def test_answers_of_one_pattern_are_its_own(plan):
    of_all = plan.why_not("_0")
    assert [line.split()[1] for line in of_all] == ["LinReLUPattern", "LinPattern"]
    assert " LinReLUPattern" in of_all[1].split("LinPattern", 1)[1], "what was in the way is named"
    assert plan.why_not("_0", "LinReLUPattern") == of_all[:1]
    assert plan.why_not("_0", "LinPattern") == of_all[1:]


def test_a_pattern_that_says_nothing_of_a_node(plan):
    assert plan.why_not("_1", "LinPattern") == ["_1: no pattern has an element for it"]
    with pytest.raises(PlanError, match=r"no pattern 'Lin'. Its patterns: LinReLUPattern, LinPattern"):
        plan.why_not("_0", "Lin")
