"""Rules about weights that are dequantized beside activations in float, and about activations quantized at run time."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    attribute,
    axis_of,
    block_of,
    consumers,
    fixed_sizes_of,
    is_per_axis,
    nodes_of,
    producer,
    quantized_type_name,
    sizes_of,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_onnxruntime.checks.walks import CARRIED, dequantizer, label

if TYPE_CHECKING:
    import onnx_ir as ir

_NBITS = frozenset({"INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"})


class WeightsAlone(Rule):
    """ORT-16. ONNX Runtime 1.31: DequantizeLinear of a constant and MatMul become MatMulNBits, which reads the
    integers. All else is dequantized in every run, and computed in float.
    """

    id = "ORT-16"
    severity = Severity.WARNING
    title = "A weight quantized alone is that of a MatMul, with scales per column or per block of 16, 32, 64… rows."
    remedy = "Write the product as MatMul with blocks along axis 0, or quantize the input and the output too."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at convolutions and products with a quantized weight and an input in float."""
        constants = Constants()
        for node in nodes_of(model, "Conv", "Gemm", "MatMul"):
            weight = dequantizer(node.inputs[1])
            if weight is None or weight.inputs[0] not in constants or node.inputs[0] in constants:
                continue
            if dequantizer(node.inputs[0], CARRIED) is None and (reason := _why_not(node, weight)):
                yield Violation(node, f"its weight is dequantized in every run, and it computes in float: {reason}")


def _why_not(node: "ir.Node", weight: "ir.Node") -> str:
    """Why a product with a weight does not become MatMulNBits; empty if it does."""
    block, axis, direct = block_of(weight), axis_of(weight), node.inputs[1] is weight.outputs[0]
    if node.op_type == "Conv":
        return "there is no kernel of convolutions for weights alone"
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        return "the weight of Gemm is transposed; expected transB=0"
    readers = consumers(node)
    rectified = node.op_type == "Gemm" and len(readers) == 1 and readers[0].op_type == "Relu"
    if rectified and not any(each.outputs[0].is_graph_output() for each in (node, *readers)):
        return f"it is made one node with {label(readers[0])} first; expected LeakyRelu of slope 0"
    if quantized_type_name(weight) not in _NBITS:
        return f"quantized to {quantized_type_name(weight)}; expected INT4 or INT8"
    if len(fixed_sizes_of(weight.inputs[0]) or ()) != 2:
        return "the weight has not two dimensions"
    if block and not direct:
        return "the weight is moved behind its blocks"
    if block and axis != 0:
        return f"blocks along axis {axis}; expected 0"
    if block and (block < 16 or block & (block - 1)):
        return f"blocks of {block}; expected a power of two from 16 on"
    if not block and is_per_axis(weight) and axis != (1 if direct else 0):
        return f"scales along axis {axis}; the columns are axis {1 if direct else 0}"
    return ""


class Tables(Rule):
    """ORT-17. ONNX Runtime 1.31: 64 rows of a table of 30,000×384 take 2.4 ms, in float 7 µs. Gather takes rows of
    integers where it reads them itself, and where Q/DQ stand behind it.
    """

    id = "ORT-17"
    severity = Severity.WARNING
    title = "Gather reads the integers of a quantized table, or has Q/DQ of the same scale behind it."
    remedy = "Gather the integers, and their scales, and dequantize these; or store the table in float."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at every Gather of a dequantized constant."""
        constants = Constants()
        for node in nodes_of(model, "Gather"):
            table = producer(node.inputs[0], DEQUANTIZE)
            if table is None or table.inputs[0] not in constants:
                continue
            if not any(reader.op_type == QUANTIZE for reader in consumers(node)) or is_per_axis(table):
                sizes = "×".join(map(str, sizes_of(table.inputs[0]) or ("?",)))
                yield Violation(node, f"the whole table, {sizes}, is dequantized in every run")


class DynamicProducts(Rule):
    """ORT-18. ONNX Runtime 1.31: MatMulInteger, Cast, Mul and Add become one kernel, DynamicQuantizeMatMul.
    DequantizeLinear and MatMul do so only without a bias; with one they become a Gemm of numbers in float, several
    times slower for 197×768 by 768×3072.
    """

    id = "ORT-18"
    severity = Severity.WARNING
    title = "A product that is quantized at run time and has a bias is written with MatMulInteger."
    remedy = "Write DynamicQuantizeLinear, MatMulInteger, Cast, Mul with the scales, and Add; or leave out the bias."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at products of what DynamicQuantizeLinear quantizes."""
        constants = Constants()
        for node in nodes_of(model, "MatMul"):
            source = dequantizer(node.inputs[0])
            if source is None or producer(source.inputs[0], "DynamicQuantizeLinear") is None:
                continue
            readers = consumers(node)
            if len(readers) != 1 or readers[0].op_type != "Add" or fixed_sizes_of(node.outputs[0]) is None:
                continue
            if any(value in constants and len(sizes_of(value) or ()) == 1 for value in readers[0].inputs):
                yield Violation(node, "with its bias it becomes a Gemm of numbers in float")
