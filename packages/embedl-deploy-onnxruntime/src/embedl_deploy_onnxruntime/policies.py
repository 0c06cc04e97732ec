"""Where quantization does not pay in ONNX Runtime on a processor."""

from torch import fx, nn

from embedl_deploy.backend import PointKind, QuantPoint
from embedl_deploy.modules import Convolution, named_weights
from embedl_deploy.patterns import get_module, operation
from embedl_deploy_onnxruntime.modules import (
    OrtAdd,
    OrtConv,
    OrtGlobalAveragePool,
    OrtHardsigmoid,
    OrtHardswish,
    OrtMul,
    OrtSiLU,
    OrtTabledActivation,
)

#: Channels of a group up to which the integer kernels of a grouped convolution are slower than those in float, measured
#: on AVX-512 with VNNI; a depthwise convolution, one filter a channel, has kernels of its own.
_FEW_CHANNELS = 16
#: Bound by memory: they gain from integers only what need not be converted.
_FOLLOWING = (OrtAdd, OrtGlobalAveragePool, OrtHardsigmoid, OrtHardswish, OrtMul, OrtSiLU, OrtTabledActivation)
#: Operations that give values of their input in another shape or order.
_MOVES = frozenset(
    {"contiguous", "flatten", "getitem", "permute", "reshape", "squeeze", "transpose", "unsqueeze", "view"}
)
_MOVING = (nn.Flatten, nn.Identity, nn.MaxPool2d, nn.modules.dropout._DropoutNd)


def quantize_all(point: QuantPoint) -> str | None:
    """Quantizers wherever the runtime has an integer kernel."""
    for part in point.parts:
        if isinstance(part, Convolution) and part.transposed:
            return "the runtime has no integer kernel for a transposed convolution"
    return None


def quantize_mixed(point: QuantPoint) -> str | None:
    """The same without what is slower in integers than in float."""
    if isinstance(point.module, _FOLLOWING) and point.kind is not PointKind.INNER and not _follows(point.node):
        return "what it reads is in float: integers would only be converted to and fro"
    for part in point.parts:
        if not isinstance(part, Convolution) or part.groups == 1:
            continue
        channels = part.in_channels // part.groups
        if 1 < channels <= _FEW_CHANNELS:
            return f"integer kernels are slower than float for groups of {channels} channels"
    return quantize_all(point)


def quantize_products(point: QuantPoint) -> str | None:
    """Inputs and weights of products with a weight alone, for ranges of each call and for weights only.

    A product gives floats whatever becomes of its result, so the range of the result need not be known. The runtime's
    kernels of convolutions, sums and activations give integers, which takes the range of the result before it is
    computed. ConvInteger does without: with INT8 weights it takes three to six times as long as the convolution in
    float, with UINT8 weights it is a fifth faster at best, and a calibrated one is four times as fast.
    """
    if point.kind not in (PointKind.INPUT, PointKind.WEIGHT):
        return "the range of a result is not known before it is computed"
    weights = named_weights(point.module)
    if not weights:
        return "it multiplies by no weight"
    if not all(isinstance(weight.operator, nn.Linear) for weight in weights):
        return "integer kernels of convolutions give integers, so they need a calibrated range for the result"
    return None


def _follows(node: fx.Node) -> bool:
    """Whether everything that a call reads comes out of integer kernels."""
    return all(_gives_integers(read) for read in node.all_input_nodes)


def _gives_integers(node: fx.Node) -> bool:
    module = get_module(node)
    if isinstance(module, OrtConv):
        groups, channels = module.conv.groups, module.conv.in_channels
        return not module.conv.transposed and not (groups > 1 and 1 < channels // groups <= _FEW_CHANNELS)
    if isinstance(module, (*_FOLLOWING, *_MOVING)) or operation(node) in _MOVES:
        return _follows(node)
    return False
