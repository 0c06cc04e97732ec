"""The rule about processors whose products of eight bits saturate."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from embedl_deploy.artifact import (
    QUANTIZE,
    array,
    attribute,
    axis_of,
    is_per_axis,
    nodes_of,
    producer,
    quantized_type_name,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_onnxruntime.checks.walks import WEIGHTED, dequantizer, reads_integers

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

#: 2 · 255 · 64 is the largest sum of two products that 16 bits hold.
_SAFE = 64


class SevenBits(Rule):
    """ORT-12. From the documentation of ONNX Runtime's quantization: on x86 with AVX2 or AVX-512 but without VNNI, two
    products of UINT8 by INT8 are added in 16 bits, and cut off at 32,767. Such a processor was not tried.
    """

    id = "ORT-12"
    severity = Severity.INFO
    title = "For x86 without VNNI, weights have seven bits: at most 64."
    remedy = "Where such processors are used, quantize weights to Precision.INT7; elsewhere nothing has to be done."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Give the first weight of INT8 with larger numbers, and how many more there are."""
        found: list[ir.Node] = []
        for node in nodes_of(model, *WEIGHTED):
            weight = dequantizer(node.inputs[1])
            if weight is None or quantized_type_name(weight) != "INT8" or not reads_integers(node):
                continue
            largest = _largest(weight)
            if largest is not None and largest > _SAFE:
                found.append(node)
        if found:
            more = f", here and at {len(found) - 1} more" if len(found) > 1 else ""
            yield Violation(found[0], f"weights over {_SAFE}{more}: products saturate on x86 without VNNI")


def _largest(weight: "ir.Node") -> float | None:
    """The largest stored integer, without its sign; ``None`` if a tensor is not stored."""
    stored = array(weight.inputs[0])
    if stored is not None:
        return float(np.abs(stored.astype(np.int16)).max(initial=0))
    quantize = producer(weight.inputs[0], QUANTIZE)
    numbers = None if quantize is None else _constant(quantize.inputs[0])
    scale = None if quantize is None else array(quantize.inputs[1])
    if quantize is None or numbers is None or scale is None:
        return None
    if is_per_axis(quantize):
        scale = scale.reshape([-1 if place == axis_of(quantize) else 1 for place in range(numbers.ndim)])
    return float(min(128, np.rint(np.abs(numbers / scale)).max(initial=0)))


def _constant(value: "ir.Value | None") -> "npt.NDArray[Any] | None":
    """The numbers of a constant, or of a transposed one."""
    node = producer(value, "Transpose")
    if node is None:
        return array(value)
    numbers = array(node.inputs[0])
    return None if numbers is None else np.transpose(numbers, attribute(node, "perm", None))
