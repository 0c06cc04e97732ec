"""EfficientNet-Lite0 in INT8 is as accurate as promised: where it pays, and with every convolution in it."""

import pytest

from support.goals import assert_goals


@pytest.mark.parametrize(("policy", "sqnr"), [("mixed", 25.0), ("all", 22.0)])
def test_bias_correction_reaches_the_goals(policy, sqnr):
    assert_goals(policy, sqnr, 0.92, bias_correction=True)


def test_centering_and_learned_rounding_reach_the_goal_of_every_convolution():
    assert_goals("all", 27.0, 0.95, centering=True, learned_rounding=True)
