"""Rules about number formats: those without kernels, and those whose kernels are slow."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    attribute,
    consumers,
    input_of,
    nodes_of,
    producer,
    quantized_type_name,
)
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy_onnxruntime.checks.walks import (
    CARRIED,
    INTEGER,
    WEIGHTED,
    dequantizer,
    label,
    quantizer_behind,
    reads_integers,
)

if TYPE_CHECKING:
    import onnx_ir as ir

_EIGHT_BITS = ("INT8", "UINT8")


class EightBits(Rule):
    """ORT-09. ONNX Runtime 1.31: its optimizer makes integer kernels of FP8 node units, which do not exist for the
    processor, so that no session can be made; nor of a MaxPool of INT4. INT16, UINT16 and INT4 are computed in float.
    """

    id = "ORT-09"
    severity = Severity.WARNING
    title = "What an operator multiplies, adds or pools is quantized to UINT8 or INT8."
    remedy = "Quantize to UINT8 and weights to INT8; INT4 is for weights alone, with activations in float."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at what operators with integer kernels, and MaxPool, read in other formats."""
        for node in nodes_of(model, *INTEGER, "MaxPool"):
            if node.op_type != "MaxPool" and not reads_integers(node):
                continue
            found = [dequantizer(value, CARRIED - {"MaxPool"}) for value in node.inputs]
            kinds = {quantized_type_name(each) for each in found[: 2 if node.op_type in WEIGHTED else None] if each}
            others = sorted(kinds - {*_EIGHT_BITS, "an unknown type"})
            if not others:
                continue
            unit = node.op_type == "MatMul" or not isinstance(quantizer_behind(node), str)
            name = others[0]
            if unit and (name.startswith("FLOAT8") or (node.op_type == "MaxPool" and name.endswith("INT4"))):
                yield Violation(node, f"{name}: no session can be made, there is no kernel for it", Severity.ERROR)
            else:
                yield Violation(node, f"computed in float: quantized to {name}")


class UnsignedWeights(Rule):
    """ORT-10. ONNX Runtime 1.31 on an x86 processor with VNNI: UINT8 by INT8 takes a third or a quarter of the time of
    UINT8 by UINT8, measured on convolutions and products.
    """

    id = "ORT-10"
    severity = Severity.WARNING
    title = "Weights are INT8: the kernels for UINT8 weights are three times slower on x86 with VNNI."
    remedy = "Quantize weights to INT8, symmetrically."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the weight of every convolution and product."""
        constants = Constants()
        for node in nodes_of(model, *WEIGHTED):
            weight = dequantizer(node.inputs[1])
            stored = weight is not None and weight.inputs[0] in constants
            if stored and weight is not None and quantized_type_name(weight) == "UINT8" and reads_integers(node):
                yield Violation(node, "its weight is UINT8; expected INT8")


class SignedActivations(Rule):
    """ORT-11. ONNX Runtime 1.31 on x86 turns INT8 tensors between QuantizeLinear and DequantizeLinear into UINT8 if one
    node reads them. Those with several readers, constants and tensors at the model's borders stay INT8, and what has
    both is computed in float. From operator set 21 on, INT8 fails with "output_dtype INT8 does not match" wherever
    QuantizeLinear has the attribute ``output_dtype``, as those have that the optimizer writes behind Reshape,
    Transpose, Squeeze, Unsqueeze, Slice and MaxPool. With ``session.qdqisint8allowed`` INT8 stays, and is four to
    seven times slower than float32.
    """

    id = "ORT-11"
    severity = Severity.INFO
    title = "Activations are UINT8: x86 has no fast kernels for INT8 activations."
    remedy = "Quantize activations to UINT8 with a zero point, which is as fast on Arm."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Tell of INT8 once, and of each place where it does harm."""
        constants = Constants()
        pairs = [
            node
            for node in nodes_of(model, DEQUANTIZE)
            if quantized_type_name(node) == "INT8" and node.inputs[0] not in constants
        ]
        if pairs:
            more = f", here and at {len(pairs) - 1} more" if len(pairs) > 1 else ""
            yield Violation(pairs[0], f"INT8 activations{more}: x86 turns them into UINT8")
        opset = model.graph.opset_imports.get("", 1)
        for node in pairs:
            yield from self._harm(node, constants, opset)

    def _harm(self, node: "ir.Node", constants: Constants, opset: int) -> Iterator[Violation]:
        """Where INT8 is refused, or computed in float."""
        quantize = producer(node.inputs[0], QUANTIZE)
        if quantize is None:
            yield Violation(node, "INT8 enters the model: what reads it is computed in float on x86", Severity.WARNING)
            return
        explicit = attribute(quantize, "output_dtype", 0) != 0 and input_of(quantize, 2) is not None
        written = _written(node) if opset >= 21 else None
        if explicit or written is not None:
            where = "the attribute output_dtype" if written is None else f"the QuantizeLinear behind {label(written)}"
            yield Violation(node, f"no session can be made on x86: INT8 with {where}", Severity.ERROR)
        readers = [use.node for pair in consumers(quantize) for use in pair.outputs[0].uses()]
        if len(readers) > 1 and any(reader.op_type in INTEGER for reader in readers):
            message = f"stays INT8 on x86: {len(readers)} nodes read it, and beside UINT8 are computed in float"
            yield Violation(node, message, Severity.WARNING)
        for use in node.outputs[0].uses():
            others = [producer(value, DEQUANTIZE) for value in use.node.inputs]
            if use.node.op_type in ("Add", "Mul", "Concat", "Where"):
                for other in others:
                    if other is not None and other.inputs[0] in constants and quantized_type_name(other) == "INT8":
                        message = f"{label(use.node)} is computed in float on x86: it has a constant in INT8"
                        yield Violation(node, message, Severity.WARNING)


def _written(dequantize: "ir.Node") -> "ir.Node | None":
    """The operator behind which the optimizer writes Q/DQ to move a DequantizeLinear down."""
    for use in dequantize.outputs[0].uses():
        carried = use.node.op_type in CARRIED - {"Identity", "Dropout"} and use.idx == 0
        if carried and not any(each.node.op_type == QUANTIZE for each in use.node.outputs[0].uses()):
            return use.node
    return None


class FloatSixteen(Rule):
    """ORT-13. ONNX Runtime 1.31 has no kernels for float16 on x86: it converts to float32 and back, and Q/DQ in float16
    are in no node unit.
    """

    id = "ORT-13"
    severity = Severity.WARNING
    title = "A file for processors is in float32."
    remedy = "Export in float32; INT8 makes it smaller than float16 does."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Give the first node of two kinds, and how many more there are."""
        quantizers = [node for node in nodes_of(model, QUANTIZE, DEQUANTIZE) if _is_half(input_of(node, 1))]
        products = [node for node in nodes_of(model, *WEIGHTED) if _is_half(node.inputs[0])]
        for nodes, message in (
            (quantizers, "scales in float16: what reads them is computed in float32, between conversions"),
            (products, "float16 is converted to float32 and back"),
        ):
            if nodes:
                more = f", here and at {len(nodes) - 1} more" if len(nodes) > 1 else ""
                yield Violation(nodes[0], f"{message}{more}")


def _is_half(value: "ir.Value | None") -> bool:
    return value is not None and value.dtype is not None and value.dtype.name == "FLOAT16"
