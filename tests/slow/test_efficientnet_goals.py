"""EfficientNet-Lite0 with every convolution in INT8 is as accurate as promised."""

from support.goals import assert_goals


def test_bias_correction_reaches_the_goals():
    assert_goals("all", 22.0, 0.92)
