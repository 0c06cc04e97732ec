"""EfficientNet-Lite0 in INT8 where it pays is as accurate as promised; with all of it in INT8: tests/slow."""

from support.goals import assert_goals


def test_bias_correction_reaches_the_goals():
    assert_goals("mixed", 25.0, 0.92)
