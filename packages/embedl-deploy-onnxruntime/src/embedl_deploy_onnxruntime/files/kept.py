"""LeakyRelu where it keeps the runtime from what it would do.

Convolutions and products whose weight is in float are kept in float. Between quantizers the runtime would quantize the
weight by itself, with one scale for all of it, whoever left it in float for its accuracy or its speed. It does not with
an activation between the result and its quantizer that it has to compute in float: so ReLU becomes LeakyRelu of slope
0, and where there is none, LeakyRelu of slope 1 gives what it is given. Both are fused into the operator, and take no
time. An average pool that is no convolution, because its windows differ in size, is kept in float as well: the
runtime's integer kernel for it takes ten times as long, and the values behind it are few.

Products that give floats to one reader and integers to another are kept in integers. A kernel that gives floats is
taken only where no quantizer reads the product, so one of slope 1 stands between both.

A product with a quantized weight is kept from a ReLU or ReLU6 behind it that no quantizer follows. The runtime would
take both together, compute them in float, and dequantize the weight in every run; with a LeakyRelu, of slope 0 in place
of a ReLU and of slope 1 in front of ReLU6, it does not.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

#: Those whose weight the runtime quantizes by itself.
_QUANTIZED_UNASKED = frozenset({"Conv", "Gemm"})
#: Those that have kernels with quantized inputs and a result in float.
_GIVING_FLOATS = frozenset({"Gemm", "MatMul"})


def keep_in_float(model: "ir.Model") -> None:
    """Keep the runtime from quantizing weights that are in float, and from average pools on integers.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        if node.op_type == "AveragePool" and _dequantizer(node.inputs[0]) is not None and _is_quantized(node):
            _put_leaky(model, node, 1.0)
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


def spare_products(model: "ir.Model") -> None:
    """Keep products in integers that are read in float and quantized as well, or quantized twice.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        if node.op_type not in _GIVING_FLOATS or not all(_dequantizer(value) for value in node.inputs[:2]):
            continue
        result = node.outputs[0]
        reader = _only_reader(node)
        if node.op_type == "MatMul" and reader is not None and reader.op_type == "Add" and _has_bias(reader, node):
            result = reader.outputs[0]  # one product for the runtime
        uses = list(result.uses())
        quantizing = [use for use in uses if use.node.op_type == "QuantizeLinear"]
        if quantizing and (len(uses) > 1 or result.is_graph_output()):
            producer = result.producer()
            assert producer is not None  # it is the product's
            _put_leaky(model, producer, 1.0, readers=[use.node for use in quantizing])


def part_from_rectifiers(model: "ir.Model") -> None:
    """Keep products with a quantized weight from being merged with a ReLU behind them whose result is read in float.

    Args:
        model: Changed in place.
    """
    for node in list(model.graph):
        given = node.op_type in _GIVING_FLOATS and _dequantizer(node.inputs[1]) is not None
        reader = _only_reader(node) if given else None
        if reader is None or reader.op_type not in ("Clip", "Relu") or reader.outputs[0].is_graph_output():
            continue
        if _dequantizer(node.inputs[0]) is not None and _is_quantized(reader):
            continue
        if reader.op_type == "Relu":
            _put_leaky(model, reader, 0.0, in_place_of=True)
        else:
            _put_leaky(model, node, 1.0)


def _has_bias(adder: "ir.Node", product: "ir.Node") -> bool:
    """Whether a sum adds something quantized, which is a bias, to a product."""
    return any(value is not product.outputs[0] and _dequantizer(value) is not None for value in adder.inputs)


def _put_leaky(
    model: "ir.Model",
    node: "ir.Node",
    slope: float,
    *,
    in_place_of: bool = False,
    readers: "Sequence[ir.Node] | None" = None,
) -> None:
    """LeakyRelu behind a node, or in its place, for all that read it or for some."""
    import onnx_ir as ir

    old = node.outputs[0]
    given = node.inputs[0] if in_place_of else old
    leaky = ir.Node("", "LeakyRelu", [given], attributes=[ir.AttrFloat32("alpha", slope)], name=f"{node.name}_leaky")
    new = leaky.outputs[0]
    new.name, new.shape, new.type = f"{old.name}_leaky", old.shape, old.type
    leaky.metadata_props.update(node.metadata_props)
    for use in list(old.uses()):
        if use.node is not leaky and (readers is None or use.node in readers):
            use.node.replace_input_with(use.idx, new)
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
