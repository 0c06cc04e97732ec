"""What TensorRT can and cannot do, as questions about modules."""

import pytest
from torch import nn

from embedl_deploy.tensorrt.constraints import is_depthwise_conv, is_int8_compatible_conv


@pytest.mark.parametrize(
    ("channels", "out", "groups", "depthwise", "int8"),
    [
        (8, 8, 1, False, True),
        (3, 5, 1, False, True),
        (8, 8, 2, False, True),
        (16, 8, 2, False, True),
        (6, 6, 2, False, False),
        (8, 6, 2, False, False),
        (6, 8, 2, False, False),
        (12, 12, 4, False, False),
        (6, 6, 6, True, True),
        (6, 12, 6, True, True),
        (1, 4, 1, False, True),
    ],
    ids=[
        "dense",
        "dense, odd channels",
        "4 channels per group",
        "8 channels in, 4 out per group",
        "3 channels per group",
        "3 channels out per group",
        "3 channels in per group",
        "3 channels in each of 4 groups",
        "depthwise",
        "depthwise with a multiplier",
        "one channel is not depthwise",
    ],
)
def test_kinds_of_convolution(channels: int, out: int, groups: int, depthwise: bool, int8: bool) -> None:
    conv = nn.Conv2d(channels, out, 3, groups=groups)
    assert is_depthwise_conv(conv) is depthwise
    assert is_int8_compatible_conv(conv) is int8
