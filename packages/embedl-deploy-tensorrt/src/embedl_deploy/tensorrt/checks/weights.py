"""Rules about constants: stored integers and biases."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import DEQUANTIZE, QUANTIZE, input_of, is_standard, nodes_of, quantized_type_name
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.tensorrt.checks.operators import is_integer_operator
from embedl_deploy.tensorrt.checks.qdq_graph import dequantizer

if TYPE_CHECKING:
    import onnx_ir as ir

_QUANTIZED_TYPES = frozenset({"INT8", "INT4", "FLOAT8E4M3FN", "FLOAT4E2M1"})


class StoredWeights(Rule):
    """TRT-Q07. TensorRT for RTX 1.7: a constant of a quantized type that anything but DequantizeLinear reads is refused
    by the builder, also if it is only transposed or reshaped on its way to one.
    """

    id = "TRT-Q07"
    severity = Severity.ERROR
    title = "A stored weight of a quantized type is read directly by DequantizeLinear."
    remedy = "Put DequantizeLinear directly after the weight, and transpose or reshape its output."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at who reads initializers and constants of quantized types."""
        for node in model.graph.all_nodes():
            if is_integer_operator(node.op_type):  # TRT-Q06
                continue
            for index, value in enumerate(node.inputs):
                if value is None or value.dtype is None or value.dtype.name not in _QUANTIZED_TYPES:
                    continue
                maker = value.producer()
                if value.const_value is None and (maker is None or maker.op_type != "Constant"):
                    continue
                is_zero_point = node.op_type in (QUANTIZE, DEQUANTIZE) and index == 2
                dequantizes = node.op_type == DEQUANTIZE and is_standard(node)
                if not is_zero_point and not dequantizes and node.op_type != "TRT_MXFP8DequantizeLinear":
                    message = f"{node.op_type} reads the {value.dtype.name} constant {value.name!r}"
                    yield Violation(node, f"{message}; only DequantizeLinear can")


class QuantizedBias(Rule):
    """TRT-Q08. TensorRT for RTX 1.7: DequantizeLinear of INT32 is refused by the parser. A bias in INT8 is taken, and
    dequantized in each run, beside the product instead of in it.
    """

    id = "TRT-Q08"
    severity = Severity.ERROR
    title = "Biases stay in float: there is no DequantizeLinear of INT32."
    remedy = (
        "Store the bias in float (in ONNX Runtime's quantize_static: extra_options={'QuantizeBias': False}); "
        "TensorRT rounds it as it needs."
    )

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at what is dequantized from INT32, and at the biases of weighted operators."""
        for node in nodes_of(model, DEQUANTIZE):
            if quantized_type_name(node) == "INT32":
                readers = ", ".join(use.node.name or use.node.op_type for use in node.outputs[0].uses())
                yield Violation(node, f"a bias in INT32 is dequantized for {readers}; expected a float bias")
        for node in nodes_of(model, "Conv", "ConvTranspose", "Gemm"):
            bias = dequantizer(input_of(node, 2))
            if bias is not None and quantized_type_name(bias) != "INT32":
                message = f"its bias is quantized to {quantized_type_name(bias)}; that saves nothing and costs accuracy"
                yield Violation(node, message, Severity.WARNING)
