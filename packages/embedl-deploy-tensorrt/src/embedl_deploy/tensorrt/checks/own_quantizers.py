"""Rules about TensorRT's own operators for activations in blocks."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from embedl_deploy.artifact import DEQUANTIZE, Constants, attribute, block_of, input_of, sizes_of
from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.tensorrt.checks.qdq_graph import LAYOUT, WEIGHTED
from embedl_deploy.tensorrt.files.functions import FP4_QUANTIZE, MXFP8_DEQUANTIZE, MXFP8_QUANTIZE

if TYPE_CHECKING:
    import onnx_ir as ir

#: Values of a block.
_BLOCKS = {FP4_QUANTIZE: 16, MXFP8_QUANTIZE: 32}
_RANKS = (2, 3)


class DynamicBlocks(Rule):
    """TRT-Q27. TensorRT for RTX 1.7: other numbers of dimensions, block sizes, and rows that are not whole blocks are
    refused by the parser.
    """

    id = "TRT-Q27"
    severity = Severity.ERROR
    title = "TensorRT's own operators quantize two or three dimensions, in whole blocks of 16 (FP4) or 32 (MXFP8)."
    remedy = (
        "Reshape the tensor to two dimensions before and back afterwards, as export_onnx does for this backend, and "
        "leave in float what is no whole number of blocks long."
    )

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at the shape of what is quantized, and at the size of blocks."""
        for node in model.graph.all_nodes():
            if node.op_type in _BLOCKS:
                yield from self._of(node, _BLOCKS[node.op_type])

    def _of(self, node: "ir.Node", block: int) -> Iterator[Violation | Undecided]:
        asked, sizes = attribute(node, "block_size", block), sizes_of(input_of(node, 0))
        if asked != block:
            yield Violation(node, f"blocks of {asked}; expected {block}")
        elif sizes is None:
            yield Undecided(node, "the shape of the tensor is not known")
        elif len(sizes) not in _RANKS:
            yield Violation(node, f"a tensor of {len(sizes)} dimensions; expected 2 or 3")
        else:
            axis = attribute(node, "axis", -1)
            length = sizes[axis]
            if length is None:
                yield Undecided(node, f"dimension {axis} is open")
            elif length % block:
                yield Violation(node, f"{length} values along axis {axis} are no multiple of {block}")


class ProductsInMxfp8(Rule):
    """TRT-Q28. TensorRT for RTX 1.7: a Cast of what is dequantized from MXFP8 while the engine runs ends the whole
    process (segmentation fault) in the builder, which refuses a product of it with a weight that DequantizeLinear
    dequantizes in blocks.
    """

    id = "TRT-Q28"
    severity = Severity.ERROR
    title = "TRT_MXFP8DequantizeLinear gives the type that is read, for both operands of a product."
    remedy = (
        "Set output_dtype in place of a Cast, and dequantize the weight with TRT_MXFP8DequantizeLinear, too: "
        "export_onnx does both for this backend."
    )

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at what reads numbers in MXFP8 that are no constants, and at the other operand of products."""
        constants = Constants()
        for node in model.graph.all_nodes():
            if node.op_type == "Cast" and self._is_activation(node.inputs[0], constants):
                yield Violation(node, "it reads what TRT_MXFP8DequantizeLinear gives; TensorRT crashes")
            if node.op_type not in WEIGHTED or not self._is_activation(node.inputs[0], constants):
                continue
            other = _source(input_of(node, 1))
            if other is not None and other.op_type == DEQUANTIZE and block_of(other):
                yield Violation(node, f"its weight is dequantized by {DEQUANTIZE}; expected {MXFP8_DEQUANTIZE}")

    def _is_activation(self, value: "ir.Value | None", constants: Constants) -> bool:
        """Whether a value is dequantized from MXFP8 and no constant."""
        source = _source(value)
        return source is not None and source.op_type == MXFP8_DEQUANTIZE and source.inputs[0] not in constants


def _source(value: "ir.Value | None") -> "ir.Node | None":
    """The node that a value comes from, through operators that only move numbers."""
    node = None if value is None else value.producer()
    while node is not None and node.op_type in LAYOUT and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node
