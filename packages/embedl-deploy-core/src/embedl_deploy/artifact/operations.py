"""The number of arithmetic operations of a node."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from embedl_deploy.artifact.questions import attribute, sizes_of
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir


def _sizes(value: "ir.Value | None", known: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    if value is not None and value.name is not None and value.name in known:
        return known[value.name]
    sizes = sizes_of(value)
    return None if sizes is None else tuple(1 if size is None else size for size in sizes)


@checked
def operations_of(node: "ir.Node", known: Mapping[str, tuple[int, ...]] | None = None) -> int:
    """Multiplications and additions of a convolution or matrix product.

    Args:
        node: The node.
        known: Shapes by the name of the value, as :func:`shapes_at` finds them; open dimensions of others count as one.

    Returns:
        0 for any other operator, and where a shape is unknown.
    """
    known = known or {}
    outputs = _sizes(node.outputs[0], known) if node.outputs else None
    if outputs is None or len(node.inputs) < 2:
        return 0
    left, right = _sizes(node.inputs[0], known), _sizes(node.inputs[1], known)
    if left is None or right is None:
        return 0
    if node.op_type in ("Conv", "ConvInteger"):  # weight: (out, in / groups, *kernel)
        return 2 * math.prod(outputs) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":  # weight: (in, out / groups, *kernel)
        return 2 * math.prod(left) * math.prod(right[1:])
    if node.op_type == "Gemm":
        inner = left[0] if attribute(node, "transA", 0) else left[-1]
        return 2 * math.prod(outputs) * inner
    if node.op_type in ("MatMul", "MatMulInteger") and left:
        return 2 * math.prod(outputs) * left[-1]
    return 0
