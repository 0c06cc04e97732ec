"""Rules about numbers: what the engine's fixed-point arithmetic asks of quantizers."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy.artifact import array, input_of
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_sensai_stub.kernels import AVERAGES, QUANTIZERS, RESHAPES, WEIGHTED, kernels_of

if TYPE_CHECKING:
    import onnx_ir as ir


def _quantizers(model: "ir.Model") -> Iterator["ir.Node"]:
    return (node for node in model.graph.all_nodes() if node.op_type in QUANTIZERS)


class PowersOfTwo(Rule):
    """SENSAI-01. Fixed point shifts, it does not multiply."""

    id = "SENSAI-01"
    severity = Severity.ERROR
    title = "Scales are powers of two."
    remedy = "Quantize with the backend's own formats, quantize(result, data), or TensorQuantConfig(power_of_two=True)."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every scale."""
        for node in _quantizers(model):
            scales = array(input_of(node, 1))
            if scales is None:
                yield Undecided(node, "the scale is not stored in the file")
            elif (wrong := scales[np.frexp(scales)[0] != 0.5]).size:
                yield Violation(node, f"a scale is {wrong.ravel()[0]:g}, which is not a power of two")


class OneScale(Rule):
    """SENSAI-02. The engine shifts whole tensors."""

    id = "SENSAI-02"
    severity = Severity.ERROR
    title = "Every tensor has one scale, including weights."
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


class EverythingQuantized(Rule):
    """SENSAI-05. The engine has no floating point. Max pooling passes on whatever numbers there are."""

    id = "SENSAI-05"
    severity = Severity.ERROR
    title = "Operators that multiply, add or average read quantized values."
    remedy = "Quantize the model with the backend's own formats, quantize(result, data), without skipping layers."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at what every kernel reads, weights included."""
        for kernel in kernels_of(model):
            node = kernel.head
            names = {"Add": ("first input", "second input")}.get(node.op_type, ("input",))
            if node.op_type in WEIGHTED:
                names = ("input", "weight")
            if node.op_type not in (*WEIGHTED, *AVERAGES, "Add"):
                continue
            floats = [name for index, name in enumerate(names) if not _is_quantized(input_of(node, index))]
            if floats:
                yield Violation(node, f"{node.op_type}: {' and '.join(floats)} in float; the engine has 8-bit numbers")


def _is_quantized(value: "ir.Value | None") -> bool:
    """Whether a value comes from DequantizeLinear, perhaps in another shape."""
    maker = None if value is None else value.producer()
    while maker is not None and maker.op_type in RESHAPES:
        value = input_of(maker, 0)
        maker = None if value is None else value.producer()
    return maker is not None and maker.op_type == "DequantizeLinear"
