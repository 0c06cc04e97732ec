"""Operators that pass values on without computing with them: quantization reaches through."""

from typing import TYPE_CHECKING

from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir

#: ``Cast`` rounds, but what was dequantized in float32 is often given on in the type of the model.
MOVES = frozenset(
    {
        *("Cast", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Split", "Squeeze"),
        *("Tile", "Transpose", "Unsqueeze"),
    }
)


def dequantizes(node: "ir.Node") -> bool:
    """Whether it is DequantizeLinear, or a compiler's own, such as ``TRT_MXFP8DequantizeLinear``."""
    return node.op_type.endswith("DequantizeLinear")


@checked
def is_dequantized(value: "ir.Value | None") -> bool:
    """Whether a value comes from DequantizeLinear, through operators that move values only."""
    while value is not None:
        producer = value.producer()
        if producer is None:
            return False
        if dequantizes(producer):
            return True
        if producer.op_type not in MOVES:
            return False
        value = producer.inputs[0]
    return False
