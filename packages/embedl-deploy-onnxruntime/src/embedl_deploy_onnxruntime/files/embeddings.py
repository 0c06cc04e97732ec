"""Tables of embeddings, whose rows are gathered as integers.

    Gather(DequantizeLinear(w, s), i)    becomes    Cast(Gather(w, i)) · Gather(s, i)      with a scale for each row
                                                    DequantizeLinear(Gather(w, i), s)      for the table, or each column

which gives the same numbers. Otherwise the runtime dequantizes the whole table in every run.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedl_deploy.artifact import Constants, block_of
from embedl_deploy_onnxruntime.files.making import initializer, node_like, take_place
from embedl_deploy_onnxruntime.files.stored_weights import constant, is_shifted

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class _Table:
    """A quantized table: the integers (V, H), the scale, a scalar, (V, 1) or (H,), and the zero point."""

    integers: "ir.Value"
    scale: "ir.Value"
    zero_point: "ir.Value | None"
    by_row: bool


def gather_integers(model: "ir.Model") -> None:
    """Gather rows of quantized tables before they are dequantized.

    Args:
        model: Changed in place.
    """
    tables: dict[ir.Value, _Table | None] = {}
    for node in list(model.graph):
        if node.op_type != "Gather" or node.domain or node.attributes.get_int("axis", 0) != 0:
            continue
        source = node.inputs[0]
        if source is None:
            continue
        if source not in tables:  # one that is read twice has its scales once
            tables[source] = _table(model, source)
        table = tables[source]
        if table is None:
            continue
        take_place(model, node, _rows(model, node, table))


def _table(model: "ir.Model", value: "ir.Value") -> _Table | None:
    """The table that a value is, as integers; ``None`` if it is none, or of a form that has to be dequantized."""
    import onnx_ir as ir

    node = value.producer()
    if node is None or node.op_type != "DequantizeLinear" or block_of(node):
        return None
    integers, scale, scales = node.inputs[0], node.inputs[1], constant(node.inputs[1])
    if integers is None or integers.dtype not in (ir.DataType.INT8, ir.DataType.UINT8) or integers not in Constants():
        return None
    if scale is None or scales is None or value.shape is None or len(value.shape) != 2:
        return None
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    if scales.ndim == 0 or node.attributes.get_int("axis", 1) % 2 == 1:
        return _Table(integers, scale, zero_point, by_row=False)
    if is_shifted(zero_point):
        return None
    column = initializer(model, f"{scale.name}_by_row", np.ascontiguousarray(scales.reshape(-1, 1)))
    return _Table(integers, column, None, by_row=True)


def _rows(model: "ir.Model", gather: "ir.Node", table: _Table) -> "ir.Value":
    """The rows that a node gathers, in float."""
    indices, kind, integers = gather.inputs[1], table.scale.dtype, table.integers.dtype
    assert kind is not None  # they are constants
    assert integers is not None
    taken = node_like(model, gather, "Gather", [table.integers, indices], integers, axis=0)
    if not table.by_row:
        read: list[ir.Value | None] = [taken, table.scale]
        if table.zero_point is not None:
            read.append(table.zero_point)
        return node_like(model, gather, "DequantizeLinear", read, kind, axis=-1)
    floats = node_like(model, gather, "Cast", [taken], kind, to=int(kind))
    scales = node_like(model, gather, "Gather", [table.scale, indices], kind, axis=0)
    return node_like(model, gather, "Mul", [floats, scales], kind)
