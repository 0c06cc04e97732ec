"""Convolutions and products whose weight is in float, kept in float.

Between quantizers the runtime would quantize the weight by itself, with one scale for all of it, whoever left it in
float for its accuracy or its speed. It does not with an activation between the result and its quantizer that it has to
compute in float: so ReLU becomes LeakyRelu of slope 0, and where there is none, LeakyRelu of slope 1 gives what it is
given. Both are fused into the operator, and take no time.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

#: Those whose weight the runtime quantizes by itself.
_QUANTIZED_UNASKED = frozenset({"Conv", "Gemm"})


def keep_in_float(model: "ir.Model") -> None:
    """Keep the runtime from quantizing weights that are in float.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        if node.op_type not in _QUANTIZED_UNASKED or node.domain or len(node.inputs) < 2:
            continue
        sides = [_dequantizer(value) for value in node.inputs[:2]]
        if sides[0] is None or sides[1] is not None:
            continue
        reader = _only_reader(node)
        if reader is not None and reader.op_type == "Relu" and _is_quantized(reader):
            _put_leaky(model, reader, 0.0, in_place_of=True)
        elif reader is not None and reader.op_type == "Clip" and _is_quantized(reader):
            _put_leaky(model, reader, 1.0)
        elif _is_quantized(node):
            _put_leaky(model, node, 1.0)


def _put_leaky(model: "ir.Model", node: "ir.Node", slope: float, *, in_place_of: bool = False) -> None:
    """LeakyRelu behind a node, or in its place."""
    import onnx_ir as ir

    old = node.outputs[0]
    given = node.inputs[0] if in_place_of else old
    leaky = ir.Node("", "LeakyRelu", [given], attributes=[ir.AttrFloat32("alpha", slope)], name=f"{node.name}_leaky")
    new = leaky.outputs[0]
    new.name, new.shape, new.type = f"{old.name}_leaky", old.shape, old.type
    leaky.metadata_props.update(node.metadata_props)
    old.replace_all_uses_with(new)
    leaky.replace_input_with(0, given)
    model.graph.insert_after(node, leaky)
    if in_place_of:
        model.graph.remove(node, safe=True)


def _dequantizer(value: "ir.Value | None") -> "ir.Node | None":
    node = None if value is None else value.producer()
    while node is not None and node.op_type == "Transpose":
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _is_quantized(node: "ir.Node") -> bool:
    """Whether a quantizer, and it alone, reads the result."""
    reader = _only_reader(node)
    return reader is not None and reader.op_type == "QuantizeLinear"


def _only_reader(node: "ir.Node") -> "ir.Node | None":
    readers = [use.node for use in node.outputs[0].uses()]
    return readers[0] if len(readers) == 1 and not node.outputs[0].is_graph_output() else None
