"""Products of activations with the range of each call, as the operators that the runtime makes one kernel of.

    DequantizeLinear(q, s, z) · s_w·w + b
                                    becomes    Cast(MatMulInteger(q, w, z)) · (s·s_w) + b,  (q, s, z) of x

with x's DynamicQuantizeLinear before. The runtime runs this as DynamicQuantizeMatMul; where several products read the
same values, as DynamicQuantizeLinear once and MatMulIntegerToFloat for each. The first it would run in float, with the
weight dequantized in every call, or, with a bias, as a product with a weight in blocks, which is many times slower.

A weight in other types than INT8, with zero points or in blocks keeps the first form.
"""

from typing import TYPE_CHECKING

from embedl_deploy_onnxruntime.files.making import initializer, node_like, take_place
from embedl_deploy_onnxruntime.files.stored_weights import Product, product_of, stored_weight

if TYPE_CHECKING:
    import onnx_ir as ir


def multiply_integers(model: "ir.Model") -> None:
    """Write products of a DynamicQuantizeLinear's values with an INT8 weight as MatMulInteger.

    Args:
        model: Changed in place. Weights are stored as integers, even if the file had them in float.
    """
    import onnx_ir as ir

    stored: dict[str, list[ir.Value]] = {}
    for node in list(model.graph):
        product = product_of(node)
        dequantize = None if product is None else product.left.producer()
        if product is None or dequantize is None or not _is_dynamic(dequantize):
            continue
        weight = stored_weight(product)
        if weight is not None and not weight.block and weight.dtype is ir.DataType.INT8:
            if weight.name not in stored:  # a layer that is called twice has one
                parts = (("integers", weight.integers), ("scales", weight.scale))
                stored[weight.name] = [initializer(model, f"{weight.name}_{what}", value) for what, value in parts]
            _write(model, product, dequantize, *stored[weight.name])


def _is_dynamic(dequantize: "ir.Node") -> bool:
    """Whether it gives the values of a DynamicQuantizeLinear again."""
    integers = dequantize.inputs[0] if dequantize.op_type == "DequantizeLinear" else None
    maker = None if integers is None else integers.producer()
    return (
        maker is not None and maker.op_type == "DynamicQuantizeLinear" and list(dequantize.inputs) == [*maker.outputs]
    )


def _write(
    model: "ir.Model", product: Product, dequantize: "ir.Node", stored: "ir.Value", of_weight: "ir.Value"
) -> None:
    """Write one product, of a weight's integers and its scales."""
    import onnx_ir as ir

    node = product.node
    integers, scale, zero_point = dequantize.inputs
    floats = ir.DataType.FLOAT
    total = node_like(model, node, "MatMulInteger", [integers, stored, zero_point], ir.DataType.INT32)
    total = node_like(model, node, "Cast", [total], floats, to=int(floats))
    scales = node_like(model, node, "Mul", [scale, of_weight], floats)
    value = node_like(model, node, "Mul", [total, scales], floats)
    if product.bias is not None:
        value = node_like(model, node, "Add", [value, product.bias], floats)
    take_place(model, node, value)
