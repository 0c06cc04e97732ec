"""What the engine asks of an ONNX file: rules for :func:`embedl_deploy.check`.

The limits of operators are those of ``limits.py``, asked about modules that are made from the nodes.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from embedl_deploy.artifact import array, attribute, fixed_sizes_of, input_of
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_sensai_stub.limits import conv_limit, linear_limit, max_pool_limit

if TYPE_CHECKING:
    import onnx_ir as ir

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
#: What happens to a tensor's shape only.
_FREE = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Constant", *_QUANTIZERS})
#: What is computed together with the operator in front of it, and those that may be there.
_BEHIND = {
    "Relu": ("Conv", "Gemm", "MatMul", "Add", "BatchNormalization"),
    "BatchNormalization": ("Conv",),
    "Add": ("MatMul",),
}
_ENGINE = "the engine runs only convolutions with batch norm and ReLU, 2×2 max pooling and linear layers"


def _quantizers(model: "ir.Model") -> Iterator["ir.Node"]:
    return (node for node in model.graph.all_nodes() if node.op_type in _QUANTIZERS)


class PowersOfTwo(Rule):
    """SENSAI-01. Fixed point shifts, it does not multiply."""

    id = "SENSAI-01"
    severity = Severity.ERROR
    title = "Scales are powers of two."
    remedy = "Quantize with SENSAI_QUANT_CONFIG, or TensorQuantConfig(power_of_two=True)."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every scale."""
        for node in _quantizers(model):
            scales = array(input_of(node, 1))
            if scales is None:
                yield Undecided(node, "the scale is not stored in the file")
            elif (wrong := scales[np.frexp(scales)[0] != 0.5]).size:
                yield Violation(node, f"a scale is {wrong.ravel()[0]:g}, which is no power of two")


class OneScale(Rule):
    """SENSAI-02. The engine shifts whole tensors."""

    id = "SENSAI-02"
    severity = Severity.ERROR
    title = "Every tensor has one scale, weights too."
    remedy = "Quantize weights per tensor: per_channel=False."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every scale's shape."""
        for node in _quantizers(model):
            scale = input_of(node, 1)
            if scale is None or scale.shape is None:
                yield Undecided(node, "the shape of the scale is not known")
            elif any(size != 1 for size in scale.shape):
                yield Violation(node, f"{'×'.join(map(str, scale.shape))} scales; the engine has one for a tensor")


class SymmetricInt8(Rule):
    """SENSAI-03. The engine has signed numbers of eight bits and no offsets."""

    id = "SENSAI-03"
    severity = Severity.ERROR
    title = "Tensors are quantized to INT8, with zero points of zero."
    remedy = "Quantize symmetrically to INT8, and keep biases in float."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every zero point and its type."""
        for node in _quantizers(model):
            zero_point = input_of(node, 2)
            if zero_point is None or zero_point.dtype is None:
                yield Undecided(node, "there is no zero point, or it has no type: how numbers are stored is not known")
                continue
            if zero_point.dtype.name != "INT8":
                yield Violation(node, f"quantized to {zero_point.dtype.name}")
            zeros = array(zero_point)
            if zeros is None:
                yield Undecided(node, "the zero point is not stored in the file")
            elif zeros.any():
                yield Violation(node, f"a zero point is {zeros[zeros != 0].ravel()[0]:g}")


class EngineOperators(Rule):
    """SENSAI-04. The limits are assumed; the README lists them."""

    id = "SENSAI-04"
    severity = Severity.ERROR
    title = "The engine has every operator, in this form."
    remedy = "Replace the layer by one that the engine has; transform(...).report names it in PyTorch."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every node that computes on data, not on sizes or constants only."""
        for node in model.graph.all_nodes():
            if node.op_type in _FREE or _is_of_constants(node) or _gives_integers(node):
                continue
            yield from self._of(node)

    def _of(self, node: "ir.Node") -> Iterator[Violation | Undecided]:
        reason: str | None = _ENGINE
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            if fixed_sizes_of(input_of(node, 1)) is None:
                yield Undecided(node, "the shape of its weight is not known")
                return
            reason = _conv(node) if node.op_type == "Conv" else _linear(node)
        elif node.op_type == "MaxPool":
            reason = _max_pool(node)
        elif node.op_type in _BEHIND:
            before = [value.producer() for value in node.inputs if value is not None]
            if any(maker is not None and maker.op_type in _BEHIND[node.op_type] for maker in before):
                reason = None
            else:
                reason = f"the engine has it only right behind {' or '.join(_BEHIND[node.op_type])}"
        if reason is not None:
            yield Violation(node, f"{node.op_type}: {reason}")


def _is_of_constants(node: "ir.Node") -> bool:
    return all(value is None or value.const_value is not None for value in node.inputs)


def _gives_integers(node: "ir.Node") -> bool:
    """Whether a node computes sizes or indices."""
    types = [value.dtype for value in node.outputs]
    return all(kind is not None and kind.name in ("INT64", "INT32", "BOOL") for kind in types)


def _conv(node: "ir.Node") -> str | None:
    shape = fixed_sizes_of(input_of(node, 1)) or ()
    if len(shape) != 4:
        return "the engine has only two-dimensional convolutions"
    groups = attribute(node, "group", 1)
    stride, dilation = (tuple(attribute(node, name, (1, 1))) for name in ("strides", "dilations"))
    module = nn.Conv2d(shape[1] * groups, shape[0], shape[2:], stride, 0, dilation, groups, device="meta")
    return conv_limit(module)


def _linear(node: "ir.Node") -> str | None:
    return linear_limit(fixed_sizes_of(input_of(node, 0)))


def _max_pool(node: "ir.Node") -> str | None:
    kernel = tuple(attribute(node, "kernel_shape", ()))
    pads = tuple(attribute(node, "pads", (0, 0, 0, 0)))
    if len(kernel) != 2 or pads[:2] != pads[2:]:
        return "the engine pools only 2×2 maxima with stride 2"
    stride, dilation = (tuple(attribute(node, name, (1, 1))) for name in ("strides", "dilations"))
    ceil = bool(attribute(node, "ceil_mode", 0))
    return max_pool_limit(nn.MaxPool2d(kernel, stride, pads[:2], dilation, len(node.outputs) > 1, ceil))


SENSAI_RULES: tuple[Rule, ...] = (PowersOfTwo(), OneScale(), SymmetricInt8(), EngineOperators())
