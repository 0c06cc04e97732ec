"""What TensorRT can and cannot do, as questions about modules."""

from torch import nn

#: INT8 kernels of grouped convolutions work on four channels at a time.
INT8_GROUP_MULTIPLE = 4
#: A convolution over fewer input channels has no FP8 kernel.
FEWEST_FP8_CHANNELS = 4


def is_depthwise_conv(conv: nn.modules.conv._ConvNd) -> bool:
    """Whether every group has exactly one input channel."""
    return conv.groups > 1 and conv.groups == conv.in_channels


def is_int8_compatible_conv(conv: nn.modules.conv._ConvNd) -> bool:
    """Whether TensorRT has INT8 kernels for this convolution.

    A grouped convolution needs input and output channels per group that are multiples of four. Depthwise
    convolutions have kernels of their own; whether those pay is a question of policy, not of support.
    """
    if conv.groups == 1 or is_depthwise_conv(conv):
        return True
    per_group = (conv.in_channels // conv.groups, conv.out_channels // conv.groups)
    return all(channels % INT8_GROUP_MULTIPLE == 0 for channels in per_group)
