"""Activations in blocks: from ONNX's own operators to TensorRT's, which it computes products in FP4 with.

    QuantizeLinear → DequantizeLinear in blocks, whose scales are computed from what is quantized, becomes

    NVFP4   TRT_FP4DynamicQuantize(x, t) → numbers, s;   DequantizeLinear(s, t)   →   DequantizeLinear(numbers, ·)
    MXFP8   TRT_MXFP8DynamicQuantize(x) → numbers, s;    TRT_MXFP8DequantizeLinear(numbers, s)

as NVIDIA's Model Optimizer writes them (modelopt/torch/quantization/export_onnx.py). The operators take two or three
dimensions (TensorRT for RTX 1.7), so a tensor with more is reshaped before and afterwards. What is dequantized from
MXFP8 has the type of the model: with a ``Cast`` to it, that compiler crashes.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedl_deploy.artifact import (
    DEQUANTIZE,
    QUANTIZE,
    Constants,
    block_of,
    consumers,
    nodes_of,
    opset_of,
    producer,
    quantized_type_of,
    sizes_of,
)
from embedl_deploy.tensorrt.files.functions import DOMAIN, FP4_QUANTIZE, MXFP8_DEQUANTIZE, MXFP8_QUANTIZE, function

if TYPE_CHECKING:
    import onnx_ir as ir

_RANKS = (2, 3)


def use_own_operators(model: "ir.Model") -> None:
    """Have a file quantize activations in blocks by TensorRT's operators, and define them as functions, in place.

    Weights in MXFP8 are dequantized by TensorRT's operator, too, in a file that has such activations.
    """
    import onnx_ir as ir

    used: dict[str, None] = {}
    constants = Constants()
    writers = {ir.DataType.FLOAT4E2M1: _write_nvfp4, ir.DataType.FLOAT8E4M3FN: _write_mxfp8}
    for quantize in list(nodes_of(model, QUANTIZE)):
        if not block_of(quantize) or quantize.inputs[1] in constants:
            continue
        kind = quantized_type_of(quantize)
        write = None if kind is None else writers.get(kind)
        for dequantize in consumers(quantize):
            if write is not None and dequantize.op_type == DEQUANTIZE and dequantize.inputs[1] is quantize.inputs[1]:
                used |= dict.fromkeys(write(quantize, dequantize))
    if MXFP8_DEQUANTIZE in used:
        for dequantize in list(_weights_in_mxfp8(model)):
            _dequantize_mxfp8(dequantize, dequantize.inputs[0], _exponents(dequantize))
    for name in used:
        made = function(name, opset_of(model))
        model.functions[made.identifier()] = made
    if used:
        model.graph.opset_imports[DOMAIN] = 1


def _write_nvfp4(quantize: "ir.Node", dequantize: "ir.Node") -> list[str]:
    """The operators that quantize and dequantize one tensor in NVFP4."""
    import onnx_ir as ir

    of_scales = producer(quantize.inputs[1], DEQUANTIZE)
    if of_scales is None or of_scales.inputs[1] is None:
        return []
    tensor_scale = of_scales.inputs[1]
    write = _Before(dequantize)
    rows = write.in_rows(_before_cast(quantize.inputs[0]))
    kinds = (ir.DataType.FLOAT4E2M1, ir.DataType.FLOAT8E4M3FN)
    numbers, scales = write.nodes(FP4_QUANTIZE, [rows, tensor_scale], kinds, axis=-1, block_size=16, scale_type=17)
    (in_float,) = write.nodes(DEQUANTIZE, [scales, tensor_scale], [ir.DataType.FLOAT])
    (found,) = write.nodes(DEQUANTIZE, [numbers, in_float], [ir.DataType.FLOAT], axis=-1, block_size=16)
    write.instead_of(dequantize.outputs[0], found)
    return [FP4_QUANTIZE]


def _write_mxfp8(quantize: "ir.Node", dequantize: "ir.Node") -> list[str]:
    """The same in MXFP8."""
    import onnx_ir as ir

    write = _Before(dequantize)
    rows = write.in_rows(_before_cast(quantize.inputs[0]))
    kinds = (ir.DataType.FLOAT8E4M3FN, ir.DataType.UINT8)
    settings = {"axis": -1, "block_size": 32, "output_dtype": int(ir.DataType.FLOAT8E4M3FN)}
    numbers, scales = write.nodes(MXFP8_QUANTIZE, [rows], kinds, **settings)
    _dequantize_mxfp8(dequantize, numbers, scales, write)
    return [MXFP8_QUANTIZE, MXFP8_DEQUANTIZE]


def _dequantize_mxfp8(
    dequantize: "ir.Node", numbers: "ir.Value | None", scales: "ir.Value", write: "_Before | None" = None
) -> None:
    """Have TensorRT's operator give what a node dequantizes, in the type that it is cast to."""
    import onnx_ir as ir

    write = write or _Before(dequantize)
    casts = [node for node in consumers(dequantize) if node.op_type == "Cast"]
    alone = len(casts) == 1 and len(consumers(dequantize)) == 1
    replaced = casts[0].outputs[0] if alone else dequantize.outputs[0]
    kind = ir.DataType(casts[0].attributes["to"].as_int()) if alone else ir.DataType.FLOAT
    settings = {"axis": -1, "block_size": 32, "output_dtype": int(kind)}
    (found,) = write.nodes(MXFP8_DEQUANTIZE, [numbers, scales], [kind], **settings)
    write.instead_of(replaced, found)


def _weights_in_mxfp8(model: "ir.Model") -> "Iterator[ir.Node]":
    """The DequantizeLinear of weights in MXFP8 whose rows are whole blocks."""
    import onnx_ir as ir

    constants = Constants()
    for node in nodes_of(model, DEQUANTIZE):
        number, scale = node.inputs[0], node.inputs[1]
        if scale is None or number not in constants or scale.dtype is not ir.DataType.FLOAT8E8M0:
            continue
        sizes = sizes_of(number)
        if quantized_type_of(node) is ir.DataType.FLOAT8E4M3FN and sizes is not None and not (sizes[-1] or 1) % 32:
            yield node


def _exponents(dequantize: "ir.Node") -> "ir.Value":
    """Scales in E8M0 as a constant of their bytes."""
    import onnx_ir as ir

    scale = dequantize.inputs[1]
    assert scale is not None  # the caller has looked
    numbers = ir.convenience.get_const_tensor(scale)
    assert numbers is not None
    tensor = ir.tensor(numbers.numpy().view(np.uint8))
    output = ir.Value(name=f"{scale.name}_exponents", type=ir.TensorType(ir.DataType.UINT8), shape=scale.shape)
    made = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[output])
    assert dequantize.graph is not None
    dequantize.graph.insert_before(dequantize, made)
    return output


def _before_cast(value: "ir.Value | None") -> "ir.Value":
    """What was widened to be quantized, in its own type of 16 bits."""
    import onnx_ir as ir

    assert value is not None  # a QuantizeLinear has an input
    cast = producer(value, "Cast")
    source = None if cast is None else cast.inputs[0]
    is_narrow = source is not None and source.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    return source if source is not None and is_narrow else value


class _Before:
    """Puts nodes before another, which they take the place of; with its metadata.

    Args:
        node: Dequantizes an activation or a weight.
    """

    def __init__(self, node: "ir.Node") -> None:
        self.node = node
        self.shape: ir.Value | None = None

    def nodes(
        self, kind: str, inputs: "list[ir.Value | None]", types: "Any", **attributes: int
    ) -> "Sequence[ir.Value]":
        """One more node; what it gives."""
        import onnx_ir as ir

        settings = [ir.AttrInt64(name, int(value)) for name, value in attributes.items()]
        domain = DOMAIN if kind.startswith("TRT_") else ""
        outputs = [ir.Value(type=ir.TensorType(each)) for each in types]
        made = ir.Node(domain, kind, inputs, settings, outputs=outputs)
        made.metadata_props.update(self.node.metadata_props)
        assert self.node.graph is not None  # it was found in one
        self.node.graph.insert_before(self.node, made)
        return made.outputs

    def in_rows(self, x: "ir.Value") -> "ir.Value":
        """``x``, or with more or fewer dimensions than TensorRT takes, its rows."""
        import onnx_ir as ir

        sizes = sizes_of(x)
        if sizes is None or len(sizes) in _RANKS:
            return x
        (self.shape,) = self.nodes("Shape", [x], [ir.DataType.INT64])
        (rows,) = self.nodes("Reshape", [x, self._constant([-1, sizes[-1]])], [x.dtype])
        rows.shape = ir.Shape([None, sizes[-1]])
        return rows

    def instead_of(self, value: "ir.Value", found: "ir.Value") -> None:
        """Have everybody read what was found in the place of a value, in the value's shape."""
        import onnx_ir as ir

        if self.shape is not None:
            (found,) = self.nodes("Reshape", [found, self.shape], [found.dtype])
        found.shape = value.shape
        ir.convenience.replace_all_uses_with(value, found, replace_graph_outputs=True)

    def _constant(self, numbers: list[Any]) -> "ir.Value":
        import onnx_ir as ir

        tensor = ir.tensor(np.array(numbers, np.int64))
        output = ir.Value(type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([len(numbers)]))
        made = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[output])
        assert self.node.graph is not None
        self.node.graph.insert_before(self.node, made)
        return output
