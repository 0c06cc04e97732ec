"""Where quantization adds traffic under TensorRT for RTX, by what its version 1.7.1 merges.

A product in float16 is one kernel with its bias and its activation, or with a sum; and it may write FP8. A product in
INT8 or FP8 is a kernel of its own: it writes float16, which another kernel reads, activates and quantizes. A quantized
convolution even writes float32. Full TensorRT merges more. docs/attention_forms.md has the trials.
"""

from torch import fx, nn

from embedl_deploy.backend import PointKind, QuantPoint
from embedl_deploy.modules import Convolution, FusedMHAInProjection, FusedSwinAttention
from embedl_deploy.patterns import get_module
from embedl_deploy.tensorrt.modules.linear import FusedLinear, FusedLinearReLU
from embedl_deploy.tensorrt.policies import quantize_mixed

_CONVOLVES = "TensorRT for RTX lets a quantized convolution write float32, which another kernel quantizes"
_ATTENDED = "attention with a bias computes in float, and quantizing its result moves it once more"
_WRITES_FP8 = "in float the product and its activation are one kernel, which may write FP8"
_WITH_ACTIVATION = "in float the product and its activation are one kernel"
_BEHIND_ACTIVATION = "what it reads is written in float, by a product and its activation in one kernel"
_PRODUCTS = (FusedLinear, FusedLinearReLU, FusedMHAInProjection)


def quantize_for_rtx(point: QuantPoint) -> str | None:
    """As ``mixed``, without what TensorRT for RTX moves more bytes for than in float."""
    reason = quantize_mixed(point)
    if reason is not None:
        return reason
    if any(isinstance(part, Convolution) for part in point.parts):
        return _CONVOLVES
    if not isinstance(point.module, _PRODUCTS) or point.kind is PointKind.OUTPUT:
        return None
    row = None if point.number_format is None else point.number_format.format
    if row is not None and (row.scale_dtype is not None or not row.for_activations):
        return None  # weights alone are read in fewer bits; activations in blocks are quantized by a kernel of its own
    if point.number_format is not None and point.number_format.is_float:
        return _WRITES_FP8 if _writes_for_product(point.node) else None
    if isinstance(point.module, FusedLinearReLU):
        return _WITH_ACTIVATION
    source = get_module(_source(point.node))
    if isinstance(source, FusedSwinAttention):
        return _ATTENDED
    return _BEHIND_ACTIVATION if isinstance(source, FusedLinearReLU) else None


def _writes_for_product(node: fx.Node) -> bool:
    """Whether all that reads a product's result are products that quantize it.

    Of products in a row every second does, counted from the last, so the row is followed to its end.
    """
    row = [node]
    while len(readers := _readers(row[-1])) == 1 and _is_product(readers[0]):
        row.append(readers[0])
    last = bool(readers) and all(_is_product(reader) and not _writes_for_product(reader) for reader in readers)
    return last is (len(row) % 2 == 1)


def _is_product(node: fx.Node) -> bool:
    return isinstance(get_module(node), _PRODUCTS)


def _readers(node: fx.Node) -> list[fx.Node]:
    """What reads a value, through dropout."""
    return [reader for user in node.users for reader in (_readers(user) if _is_dropout(user) else [user])]


def _source(node: fx.Node) -> fx.Node:
    """What makes the first input of a call, before dropout."""
    source = node.all_input_nodes[0]
    return _source(source) if _is_dropout(source) else source


def _is_dropout(node: fx.Node) -> bool:
    return isinstance(get_module(node), nn.Dropout)
