"""Rules about attention and layer normalization, which TensorRT computes in kernels of their own."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from embedl_deploy.artifact import QUANTIZE, Constants, array, consumers, nodes_of, producer, quantized_type_name
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.tensorrt.checks.qdq_graph import dequantizer

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx_ir as ir

#: The largest number of each type: a softmax is at most 1, so its scale is one over this.
_LARGEST = {"INT8": 127.0, "FLOAT8E4M3FN": 448.0}
_TOLERANCE = 0.01


class AttentionScales(Rule):
    """TRT-Q20. TensorRT for RTX 1.7 takes any scale, and a multiplication after the first product, which it puts into
    the kernel of the softmax. NVIDIA asks for both where attention is to be one kernel.
    """

    id = "TRT-Q20"
    severity = Severity.WARNING
    title = "Attention scales query or key before the first product, and quantizes the softmax at 1/127 (FP8: 1/448)."
    remedy = (
        "Multiply the query by the factor before quantizing it; derive the softmax's scale from its range, 0 to 1, "
        "unless attention is spread over so many keys that this rounds it to zero."
    )

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at what is before and after every Softmax."""
        constants = Constants()
        for node in nodes_of(model, "Softmax"):
            factor = self._factor(node.inputs[0], constants)
            if factor is not None:
                yield Violation(factor, f"scales the product of quantized query and key in front of {node.name!r}")
            for reader in consumers(node):
                largest = _LARGEST.get(quantized_type_name(reader)) if reader.op_type == QUANTIZE else None
                if largest is None:
                    continue
                scale = array(reader.inputs[1])
                if scale is None:
                    yield Undecided(reader, "the scale of the softmax is not stored in the file")
                elif not np.allclose(scale.astype(np.float32), 1 / largest, rtol=_TOLERANCE, atol=0):
                    yield self._other_scale(reader, node, scale.astype(np.float32), largest)

    def _other_scale(
        self, reader: "ir.Node", softmax: "ir.Node", scale: "npt.NDArray[Any]", largest: float
    ) -> Violation:
        """What to tell of a softmax's scale; one for half its range or less is chosen where attention is spread."""
        found = float(scale.ravel()[0])
        said = f"the softmax {softmax.name!r} is quantized at {found:.5f}"
        if 0 < float(scale.max()) <= 0.5 / largest:
            reach = float(scale.max()) * largest
            return Violation(reader, f"{said}, for values up to {reach:.2g}: spread over many keys", Severity.INFO)
        return Violation(reader, f"{said}; expected 1/{largest:.0f} = {1 / largest:.5f}")

    def _factor(self, value: "ir.Value | None", constants: Constants) -> "ir.Node | None":
        """A multiplication by a constant between a product of two quantized tensors and a softmax."""
        node, factor = producer(value), None
        while node is not None and node.op_type in ("Mul", "Div", "Add", "Where"):
            if node.op_type in ("Mul", "Div") and any(value in constants for value in node.inputs):
                factor = node
            node = next((producer(value) for value in node.inputs if value not in constants), None)
        if node is None or node.op_type != "MatMul" or any(dequantizer(value) is None for value in node.inputs):
            return None
        return factor


class LayerNormInFloat(Rule):
    """TRT-Q21. TensorRT for RTX 1.7 takes all of it, and puts Q/DQ before the normalization into its kernel, so
    that they cost accuracy only.
    """

    id = "TRT-Q21"
    severity = Severity.WARNING
    title = "Layer normalization is one node in float."
    remedy = "Export for operator set 17 or newer, and do not quantize the inputs of LayerNormalization."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look for quantized inputs, and for normalizations written out as ReduceMean, Sub, Sqrt and Div."""
        for node in nodes_of(model, "LayerNormalization"):
            quantized = [str(index) for index, value in enumerate(node.inputs) if dequantizer(value) is not None]
            if quantized:
                yield Violation(node, f"input {' and '.join(quantized)} is quantized")
        for node in nodes_of(model, "Div"):
            if self._is_normalization(node):
                yield Violation(node, "a layer normalization in several nodes, which float16 may overflow")

    def _is_normalization(self, node: "ir.Node") -> bool:
        """Whether a node divides ``x - mean`` by the root of the mean of its squares."""
        centred = producer(node.inputs[0], "Sub")
        root = producer(node.inputs[1], "Sqrt")
        if centred is None or root is None or producer(centred.inputs[1], "ReduceMean") is None:
            return False
        total = producer(root.inputs[0], "Add")
        variances = [producer(value, "ReduceMean") for value in total.inputs] if total is not None else []
        squares = [producer(mean.inputs[0], "Pow", "Mul") for mean in variances if mean is not None]
        return any(square is not None and centred.outputs[0] in square.inputs for square in squares)
