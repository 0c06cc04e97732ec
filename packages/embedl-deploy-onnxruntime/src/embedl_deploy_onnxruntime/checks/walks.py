"""How ONNX Runtime finds a *node unit*, ``DequantizeLinear → operator → QuantizeLinear``: what all rules ask.

Its optimizer replaces a unit with one integer kernel. It first moves DequantizeLinear down and QuantizeLinear up
through some operators that only move numbers, so a unit can have such operators between its parts.
"""

from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    array,
    consumers,
    input_of,
    is_standard,
    producer,
    quantized_type_of,
)

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators with an integer kernel, and the inputs that have to be dequantized for it; ``None`` for all of them.
INTEGER: dict[str, tuple[int, ...] | None] = {
    "Conv": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "Add": (0, 1),
    "Mul": (0, 1),
    "Where": (1, 2),
    "Concat": None,
    "Sigmoid": (0,),
    "LeakyRelu": (0,),
    "Softmax": (0,),
    "AveragePool": (0,),
    "GlobalAveragePool": (0,),
}
#: Operators with a weight as their second input.
WEIGHTED = ("Conv", "Gemm", "MatMul")
#: Operators that only move numbers, through which the runtime moves DequantizeLinear and QuantizeLinear.
CARRIED = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool", "Identity", "Dropout"})
#: Operators that only move numbers, but run on integers only with both directly at them.
MOVING = frozenset({"Flatten", "Split", "Gather", "Expand", "Tile", "DepthToSpace", "Resize", "ReduceMax"})
#: Activation functions that are left out where the range of the QuantizeLinear behind them ends where they cut.
RECTIFIERS = frozenset({"Relu", "Clip"})


def is_mover(node: "ir.Node") -> bool:
    """Whether an operator can move integers as they are; of Resize only the nearest neighbour does."""
    if node.op_type == "Resize":
        mode = node.attributes.get("mode")
        return mode is None or mode.value == "nearest"
    return is_standard(node) and (node.op_type in MOVING or node.op_type in CARRIED)


def dequantizer(value: "ir.Value | None", through: frozenset[str] = CARRIED) -> "ir.Node | None":
    """The DequantizeLinear that a value comes from, through operators that only move numbers.

    Not through one that a QuantizeLinear reads beside others, where the runtime does not move DequantizeLinear.
    """
    node = producer(value)
    while node is not None and is_standard(node) and node.op_type in through:
        readers = consumers(node)
        if len(readers) > 1 and any(reader.op_type == QUANTIZE for reader in readers):
            return None
        node = producer(node.inputs[0])
    return node if node is not None and node.op_type == DEQUANTIZE else None


def quantized_inputs(node: "ir.Node") -> list[bool]:
    """For each input that the integer kernel wants dequantized, whether it is."""
    wanted = INTEGER[node.op_type]
    places = range(len(node.inputs)) if wanted is None else wanted
    return [dequantizer(input_of(node, place)) is not None for place in places]


def reads_integers(node: "ir.Node") -> bool:
    """Whether an operator has an integer kernel, and all that this needs is dequantized."""
    return is_standard(node) and node.op_type in INTEGER and all(quantized_inputs(node))


def quantizer_behind(node: "ir.Node") -> "ir.Node | str":
    """The one QuantizeLinear that reads what an operator gives, or in words why the runtime finds none.

    A rectifier behind the operator, or behind a Transpose of it, is passed, too: whether it is left out is another
    question.
    """
    value, passed = node.outputs[0], CARRIED | RECTIFIERS
    while True:
        if value.is_graph_output():
            return "its output is an output of the model"
        readers = list(dict.fromkeys(use.node for use in value.uses()))
        if len(readers) != 1:
            names = sorted({reader.op_type for reader in readers})
            return (
                f"{len(readers)} nodes read its output ({', '.join(names)})" if readers else "nothing reads its output"
            )
        (reader,) = readers
        if reader.op_type == QUANTIZE:
            return reader
        if not is_standard(reader) or reader.op_type not in passed or reader.inputs[0] is not value:
            return f"{label(reader)} reads its output"
        value, passed = reader.outputs[0], passed if reader.op_type == "Transpose" else CARRIED


def same_grid(first: "ir.Node", second: "ir.Node") -> bool | None:
    """Whether two quantize or dequantize with one scale, zero point and type; ``None`` if one is not in the file."""
    if quantized_type_of(first) != quantized_type_of(second):
        return False
    for place in (1, 2):
        values = input_of(first, place), input_of(second, place)
        if values[0] is values[1]:
            continue
        numbers = [np.zeros(()) if value is None else array(value) for value in values]
        if numbers[0] is None or numbers[1] is None:
            return None
        if not np.array_equal(numbers[0].ravel(), numbers[1].ravel()):
            return False
    return True


def label(node: "ir.Node") -> str:
    """An operator and its name, for messages."""
    return f"{node.op_type} {node.name!r}"
