"""Where quantization does not pay on TensorRT.

A quantizer beside an operator that is bound by memory, not by arithmetic, costs reformatting and gains nothing.
"""

import math

from torch import fx, nn

from embedl_deploy.backend import QuantPoint
from embedl_deploy.modules import NORMS, Convolution
from embedl_deploy.patterns import get_module, operation, shape_of
from embedl_deploy.tensorrt.constraints import FEWEST_FP8_CHANNELS, is_depthwise_conv
from embedl_deploy.tensorrt.modules.pool import FusedAdaptiveAvgPool2d

#: Input channels below which INT8 kernels of a convolution are mostly padding: they work on 4, best on 32, at a time.
_SMALL_STEM = 4
#: As TensorRT for RTX 1.7 does with INT8 and FP8, over one to three dimensions, in any number of groups; TensorRT 8 has
#: INT8 kernels for one scale, or a scale for each input channel, only.
_TRANSPOSED = "TensorRT for RTX has no kernel for a quantized transposed convolution: it computes in float all the same"
#: Operations that give the values of their input in another shape or order.
_MOVES = frozenset({"contiguous", "flatten", "permute", "reshape", "squeeze", "transpose", "unsqueeze", "view"})


def quantize_all(point: QuantPoint) -> str | None:
    """Quantizers wherever patterns and modules have a place for them, and TensorRT has a kernel."""
    if isinstance(point.module, FusedAdaptiveAvgPool2d) and _is_normalized(point.node):
        return "what it pools is normalized next, in float: pooling in INT8 needs INT8 on both sides"
    convolutions = [part for part in point.parts if isinstance(part, Convolution)]
    if any(conv.transposed for conv in convolutions):
        return _TRANSPOSED
    if point.number_format is None or not point.number_format.is_float or point.number_format.has_scale_format:
        return None  # formats in blocks are for products alone, whatever the hardware
    for part in convolutions:
        if part.groups > 1:
            return f"TensorRT has no FP8 kernel for a convolution in {part.groups} groups"
        if part.in_channels < FEWEST_FP8_CHANNELS:
            return f"TensorRT has no FP8 kernel for a convolution over {part.in_channels} channels"
    return None


def quantize_mixed(point: QuantPoint) -> str | None:
    """Leave depthwise convolutions, global pooling, stems over a few channels and products with a vector in float."""
    if _is_vector_product(point):
        return "a product with one vector per image: quantizing it takes a kernel of its own"
    for part in point.parts:
        if isinstance(part, nn.AdaptiveAvgPool2d):
            return "global pooling is bound by memory"
        if isinstance(part, Convolution) and is_depthwise_conv(part):
            return f"a depthwise convolution ({part.groups} groups) is bound by memory"
        if isinstance(part, Convolution) and part.in_channels < _SMALL_STEM:
            return f"a stem over {part.in_channels} channels leaves INT8 kernels mostly empty"
    return quantize_all(point)


def _is_normalized(node: fx.Node) -> bool:
    """Whether everything that reads a value is a layer normalization, whatever moves it on the way."""
    return bool(node.users) and all(
        isinstance(get_module(user), (*NORMS, nn.LayerNorm, nn.RMSNorm))
        or (operation(user) in _MOVES and _is_normalized(user))
        for user in node.users
    )


def _is_vector_product(point: QuantPoint) -> bool:
    """Whether a weight meets one position of each image, as in a classifier or a squeeze-and-excitation; if known."""
    shape = shape_of(point.node)
    weighted = any(isinstance(part, (nn.Linear, Convolution)) for part in point.parts)
    if shape is None or not weighted or len(shape) < 2:
        return False
    positions = shape[1:-1] if any(isinstance(part, nn.Linear) for part in point.parts) else shape[2:]
    return math.prod(positions) == 1
