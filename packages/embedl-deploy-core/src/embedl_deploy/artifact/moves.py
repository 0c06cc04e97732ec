"""Operators that pass values on without computing with them: quantization reaches through."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

MOVES = frozenset(
    {
        *("Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Split", "Squeeze", "Tile"),
        *("Transpose", "Unsqueeze"),
    }
)


def is_dequantized(value: "ir.Value | None") -> bool:
    """Whether a value comes from DequantizeLinear, through operators that move values only."""
    while value is not None:
        producer = value.producer()
        if producer is None:
            return False
        if producer.op_type == "DequantizeLinear":
            return True
        if producer.op_type not in MOVES:
            return False
        value = producer.inputs[0]
    return False
