"""Stores a weight once if it is used twice, even if one use is transposed.

A language model's last product has the weights of its embedding. The exporter computes the transpose that the product
asks for and stores it beside the embedding: a second copy of what is often the largest tensor.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

#: Smaller ones are not worth an operator.
_BYTES = 4096


def store_once(model: "ir.Model") -> None:
    """Compute weights that are transposes of others from them, in place."""
    import onnx_ir as ir

    by_shape: dict[tuple[int, ...], list[ir.Value]] = {}
    graph = model.graph
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or len(tensor.shape) != 2 or tensor.nbytes < _BYTES or not value.uses():
            continue
        rows, columns = tensor.shape.numpy()
        of = next((other for other in by_shape.get((columns, rows), ()) if _is_transpose(other, value)), None)
        if of is None:
            by_shape.setdefault((rows, columns), []).append(value)
            continue
        user = next(iter(value.uses())).node
        transpose = ir.node("Transpose", [of], {"perm": [1, 0]}, name=f"{value.name}_transposed")
        transpose.metadata_props.update(user.metadata_props)
        (result,) = transpose.outputs
        result.name, result.type, result.shape = f"{value.name}_of_{of.name}", value.type, value.shape
        ir.convenience.replace_all_uses_with(value, result)
        graph.insert_before(next(iter(graph)), transpose)
        del graph.initializers[value.name]  # type: ignore[arg-type]  # an initializer has a name


def _is_transpose(one: "ir.Value", other: "ir.Value") -> bool:
    a, b = one.const_value, other.const_value
    if a is None or b is None or a.dtype != b.dtype:
        return False
    x, y = a.numpy(), b.numpy()
    return np.array_equal(x[:, 0], y[0]) and np.array_equal(x.T, y)  # nearly all differ in the first column
