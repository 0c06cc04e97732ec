"""A weight that several products read, turned, for each of them.

    DequantizeLinear(w) → Transpose → MatMul, MatMul    becomes    DequantizeLinear(w) → Transpose → MatMul, for each

The runtime gives each reader its own DequantizeLinear, as its integer kernels need it, but no Transpose behind one. The
integers are stored once.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_PRODUCTS = frozenset({"Gemm", "MatMul"})


def part_weights(model: "ir.Model") -> None:
    """Give each product its own DequantizeLinear and Transpose of a weight that several read.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        dequantize = None if node.op_type != "Transpose" or node.inputs[0] is None else node.inputs[0].producer()
        if dequantize is None or dequantize.op_type != "DequantizeLinear" or node.outputs[0].is_graph_output():
            continue
        uses = [use for use in node.outputs[0].uses() if use.node.op_type in _PRODUCTS and use.idx == 1]
        for number, use in enumerate(uses[1:], start=1):
            own = _copy(dequantize, list(dequantize.inputs), number)
            use.node.replace_input_with(1, _copy(node, [own], number))


def _copy(node: "ir.Node", inputs: "list[ir.Value | None]", number: int) -> "ir.Value":
    """What a copy of a node gives, of other inputs, behind the node."""
    import onnx_ir as ir

    made = ir.Node(node.domain, node.op_type, inputs, attributes=node.attributes.values(), name=f"{node.name}_{number}")
    old, new = node.outputs[0], made.outputs[0]
    new.name, new.shape, new.type = f"{old.name}_{number}", old.shape, old.type
    made.metadata_props.update(node.metadata_props)
    assert node.graph is not None  # it is one of the model's
    node.graph.insert_after(node, made)
    return new
