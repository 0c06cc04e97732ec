"""Where quantization does not pay in ONNX Runtime on a processor."""

from torch import fx, nn

from embedl_deploy.backend import PointKind, QuantPoint
from embedl_deploy.modules import Convolution, FusedEmbedding, named_weights
from embedl_deploy.patterns import arguments_by_name, get_module, operation
from embedl_deploy_onnxruntime.modules import (
    OrtAdd,
    OrtAveragePool,
    OrtBatchNorm,
    OrtConcat,
    OrtConv,
    OrtGlobalAveragePool,
    OrtHardsigmoid,
    OrtHardswish,
    OrtMul,
    OrtSiLU,
    OrtTabledActivation,
)

#: Channels of a group up to which the integer kernels of a grouped convolution are slower than those in float, with the
#: conversions around these, measured on AVX-512 with VNNI: of 4 channels 8 times slower, of 8 as fast, of 16 faster.
#: A depthwise convolution, one filter a channel, has kernels of its own.
_FEW_CHANNELS = 8
_NO_ROWS = "the runtime gathers rows of numbers of 8 bits only: it would dequantize the whole table in every run"
_IN_BLOCKS = "the runtime has no operator that finds scales of blocks, and computes in float all the same"
#: What the numbers of a table may be in a file.
_ROWS = ("INT8", "UINT8")
#: Bound by memory: they gain from integers only what need not be converted.
_FOLLOWING = (
    OrtAdd,
    OrtAveragePool,
    OrtBatchNorm,
    OrtGlobalAveragePool,
    OrtHardsigmoid,
    OrtHardswish,
    OrtMul,
    OrtSiLU,
    OrtTabledActivation,
)
#: Operations that give values of their input in another shape or order, and those that do something in training only.
_MOVES = frozenset(
    {
        *("chunk", "contiguous", "flatten", "getitem", "permute", "reshape", "split", "squeeze", "transpose"),
        *("unsqueeze", "view", "stochastic_depth", "drop_path"),
    }
)
_MOVING = (
    *(nn.Flatten, nn.Identity, nn.MaxPool2d, nn.modules.dropout._DropoutNd),
    *(nn.modules.padding._ReflectionPadNd, nn.modules.padding._ReplicationPadNd, nn.modules.padding._CircularPadNd),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
)
#: The same of modules of other packages.
_MOVING_ELSEWHERE = frozenset({"StochasticDepth", "DropPath"})


def quantize_all(point: QuantPoint) -> str | None:
    """Quantizers wherever the runtime has an integer kernel."""
    return _without_kernel(point, mixed=False)


def quantize_mixed(point: QuantPoint) -> str | None:
    """The same without what is slower in integers than in float."""
    if isinstance(point.module, _FOLLOWING) and point.kind is not PointKind.INNER and not _follows(point.node, True):
        return "what it reads is in float: integers would only be converted to and fro"
    for part in point.parts:
        if isinstance(part, Convolution) and _is_slow(part):
            channels = part.in_channels // part.groups
            return f"integer kernels are slower than float for groups of {channels} channels"
    return _without_kernel(point, mixed=True)


def quantize_products(point: QuantPoint) -> str | None:
    """Inputs and weights of products with a weight alone, for ranges of each call and for weights only.

    A product gives floats whatever becomes of its result, so the range of the result need not be known. The runtime's
    kernels of convolutions, sums and activations give integers, which takes the range of the result before it is
    computed. ConvInteger does without: with INT8 weights it takes three to six times as long as the convolution in
    float, with UINT8 weights it is a fifth faster at best, and a calibrated one is four times as fast.
    """
    if point.kind not in (PointKind.INPUT, PointKind.WEIGHT):
        return "the range of a result is not known before it is computed"
    if _is_in_blocks(point):
        return _IN_BLOCKS
    weights = named_weights(point.module)
    if not weights:
        return "it multiplies by no weight"
    if isinstance(point.module, FusedEmbedding):
        return _without_rows(point)
    if not all(isinstance(weight.operator, nn.Linear) for weight in weights):
        return "integer kernels of convolutions give integers, so they need a calibrated range for the result"
    return None


def _is_in_blocks(point: QuantPoint) -> bool:
    """Whether an activation is to be in a format that is defined in blocks."""
    in_blocks = point.number_format is not None and point.number_format.has_scale_format
    return in_blocks and point.kind is not PointKind.WEIGHT


def _without_rows(point: QuantPoint) -> str | None:
    """Why a table cannot be gathered in its format."""
    meant = point.number_format
    return None if meant is None or meant.format.onnx_type in _ROWS else _NO_ROWS


def _without_kernel(point: QuantPoint, *, mixed: bool) -> str | None:
    if _is_in_blocks(point):
        return _IN_BLOCKS
    if isinstance(point.module, FusedEmbedding):
        return _without_rows(point)
    for part in point.parts:
        if isinstance(part, Convolution) and part.transposed:
            return "the runtime has no integer kernel for a transposed convolution"
    if isinstance(point.module, OrtConcat) and not _follows(point.node, mixed):
        return "the runtime has no integer kernel for a concatenation with a tensor in float"
    return None


def _is_slow(conv: Convolution) -> bool:
    return conv.groups > 1 and 1 < conv.in_channels // conv.groups <= _FEW_CHANNELS


def _follows(node: fx.Node, mixed: bool) -> bool:
    """Whether everything that a call reads comes out of integer kernels, under the policy ``mixed`` or ``all``.

    Constants do not count, because the runtime converts them when it loads the file, if they have a scale: the inputs
    of a concatenation have none.
    """
    read = [each for each in node.all_input_nodes if isinstance(get_module(node), OrtConcat) or not _is_constant(each)]
    return bool(read) and all(_gives_integers(each, mixed) for each in read)


def _is_constant(node: fx.Node) -> bool:
    """Whether a value depends on no input of the model."""
    if node.op in ("call_function", "call_method"):
        return bool(node.all_input_nodes) and all(_is_constant(each) for each in node.all_input_nodes)
    return node.op == "get_attr"


def _gives_integers(node: fx.Node, mixed: bool) -> bool:
    """Whether a value is quantized where it is computed."""
    module = get_module(node)
    if isinstance(module, OrtConv):
        return not module.conv.transposed and not (mixed and _is_slow(module.conv))
    if isinstance(module, _FOLLOWING) and not mixed:
        return True
    if isinstance(module, (*_FOLLOWING, OrtConcat, *_MOVING)) or type(module).__name__ in _MOVING_ELSEWHERE:
        return _follows(node, mixed)
    done = operation(node)
    name = done if isinstance(done, str) else getattr(done, "__name__", None)
    return (name in _MOVES or (name == "pad" and _pads_by_values_or_zeros(node))) and _follows(node, mixed)


def _pads_by_values_or_zeros(node: fx.Node) -> bool:
    given = arguments_by_name(node)
    return given.get("mode", "constant") != "constant" or not given.get("value")
