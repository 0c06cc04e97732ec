"""Why the runtime computes a convolution or a product in float although what it reads is quantized.

It replaces a node between DequantizeLinear and QuantizeLinear by an integer kernel where both sides fit. What did not
fit is read off the optimized model, in which the nodes that were not replaced still stand between theirs.
"""

from typing import TYPE_CHECKING

from embedl_deploy_onnxruntime.compiler.processor import processor_here

if TYPE_CHECKING:
    import onnx_ir as ir

#: Those that need a quantized result; the others have a kernel that gives floats.
_NEED_QUANTIZED_RESULT = frozenset({"Conv", "FusedConv", "ConvTranspose"})
_RECTIFIERS = ("Clip", "Relu")
_FLOAT_PRODUCTS = frozenset({"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"})
#: The ``accuracy_level`` of MatMulNBits at which it does, the default of what the optimizer makes.
_ROUNDS_INPUTS = 4


def why_in_float(node: "ir.Node") -> str:
    """The reason as far as the optimized model shows it; empty where nothing was to be computed in integers."""
    if node.op_type == "MatMulNBits":
        of_input = "in float"
        if node.attributes.get_int("accuracy_level", 0) == _ROUNDS_INPUTS:
            of_input += ", and rounded to 8 bits in blocks by the kernel"
        return f"weight-only: the weight has {node.attributes['bits'].as_int()} bits, the input is {of_input}, as meant"
    if node.op_type not in _FLOAT_PRODUCTS or len(node.inputs) < 2:
        return ""
    sides = [_stored_type(value) for value in node.inputs[:2]]
    if not all(sides):
        return ""
    if node.op_type == "ConvTranspose":
        return "it has no integer kernel for transposed convolutions"
    activation, weight = sides
    if activation == "INT8" and processor_here().startswith("x86") and _is_read_by_others(node.inputs[0]):
        return "its input is INT8, which is not made UINT8, as its kernels on x86 need it, where several nodes read it"
    if activation not in ("INT8", "UINT8") or weight not in ("INT8", "UINT8"):
        return f"it has no kernel for {activation} times {weight}"
    if "activation" in node.attributes:
        function = node.attributes["activation"].as_string()
        return f"{function} stands between it and QuantizeLinear, and is applied in float"
    readers = [use.node for use in node.outputs[0].uses()]
    if node.op_type in _NEED_QUANTIZED_RESULT:
        if node.outputs[0].is_graph_output():
            return "its result is an output of the network, in float"
        others = sorted({reader.op_type for reader in readers if reader.op_type != "QuantizeLinear"})
        if others:
            return f"its result is read in float, by {', '.join(others)}"
        if len(readers) > 1:
            return "its result is quantized more than once"
    elif len(readers) == 1 and readers[0].op_type in _RECTIFIERS:
        return f"{readers[0].op_type} behind it is read in float, and the runtime takes both together"
    if len(node.inputs) > 2 and node.inputs[2] is not None and not _stored_type(node.inputs[2]):
        return "its bias is in float, and so is its result: one of them has to be quantized"
    return ""


def _is_read_by_others(value: "ir.Value | None") -> bool:
    """Whether what is dequantized for a node is read by other nodes too."""
    producer = None if value is None else value.producer()
    stored = None if producer is None else producer.inputs[0]
    return stored is not None and len(tuple(stored.uses())) > 1


def _stored_type(value: "ir.Value | None") -> str:
    """The integer type that a value is dequantized from; empty if it is not."""
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return ""
    grid = producer.inputs[2] if len(producer.inputs) > 2 else None
    for known in (producer.inputs[0], grid):
        if known is not None and known.dtype is not None:
            return str(known.dtype.name)
        if known is not None and known.const_value is not None:
            return str(known.const_value.dtype.name)
    return "INT32" if grid is None else ""
