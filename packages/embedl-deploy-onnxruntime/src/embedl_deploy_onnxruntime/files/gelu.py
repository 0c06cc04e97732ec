"""GELU in the order of factors that the runtime knows.

    x · (½ · (1 + erf(x/√2)))   becomes   (x · (1 + erf(x/√2))) · ½

which ONNX Runtime runs as one kernel, with the bias before it; the first, which torch writes, as five.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def reorder_gelu(model: "ir.Model") -> None:
    """Write every GELU in that order.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        if node.op_type == "Erf":
            _reorder(node)


def _reorder(erf: "ir.Node") -> None:
    """Exchange the factors of the GELU that an Erf is part of, if it is part of one in torch's order."""
    divided = None if erf.inputs[0] is None else erf.inputs[0].producer()
    added = _only_reader(erf, "Add")
    halved = None if added is None else _only_reader(added, "Mul")
    product = None if halved is None else _only_reader(halved, "Mul")
    if divided is None or divided.op_type != "Div" or added is None or halved is None or product is None:
        return
    x, gate = divided.inputs[0], added.outputs[0]
    half_at = next((i for i, value in enumerate(halved.inputs) if value is not gate), None)
    if half_at is None or not _is_number(halved.inputs[half_at], 0.5) or x not in product.inputs:
        return
    half = halved.inputs[half_at]
    halved.replace_input_with(half_at, x)
    product.replace_input_with(0, halved.outputs[0])
    product.replace_input_with(1, half)


def _only_reader(node: "ir.Node", kind: str) -> "ir.Node | None":
    readers = [use.node for use in node.outputs[0].uses()]
    return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None


def _is_number(value: "ir.Value | None", number: float) -> bool:
    constant = None if value is None else value.const_value
    return constant is not None and constant.size == 1 and float(constant.numpy()) == number
