"""Weights into which torch's exporter has folded a batch norm, in the type that they were in.

It computes with NumPy, in which a number of Python makes float32 of bfloat16: ``Conv`` is then given an input in
bfloat16 and a weight in float32, which no checker takes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_FOLDED_INTO = frozenset({"Conv", "ConvTranspose", "Gemm"})


def keep_bfloat16(model: "ir.Model") -> None:
    """Round weights and biases in float32 of what else is in bfloat16, in place."""
    import onnx_ir as ir

    kept = ir.DataType.BFLOAT16
    for node in model.graph.all_nodes():
        values = (*node.inputs[:1], *node.outputs)
        if node.op_type not in _FOLDED_INTO or all(value is None or value.dtype is not kept for value in values):
            continue
        for value in node.inputs[1:]:
            if value is not None and value.const_value is not None and value.const_value.dtype is ir.DataType.FLOAT:
                value.const_value = ir.tensor(value.const_value.numpy().astype(kept.numpy()), name=value.name)
                value.dtype = kept
