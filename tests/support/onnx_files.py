"""Small ONNX models, built node by node, for tests of what reads them."""

from typing import Any

import numpy as np
import onnx_ir as ir

FLOAT = ir.DataType.FLOAT
FLOAT16 = ir.DataType.FLOAT16
BFLOAT16 = ir.DataType.BFLOAT16
INT4 = ir.DataType.INT4
INT8 = ir.DataType.INT8
UINT8 = ir.DataType.UINT8
INT16 = ir.DataType.INT16
INT32 = ir.DataType.INT32
FP8 = ir.DataType.FLOAT8E4M3FN
E2M1 = ir.DataType.FLOAT4E2M1
E8M0 = ir.DataType.FLOAT8E8M0


class OnnxFile:
    """A model that grows.

    Values are handed on from method to method, so that a test reads like the model:
    ``f.conv(f.qdq(f.input(1, 8, 4, 4)), f.weight(8, 8, 3, 3))``.
    """

    def __init__(self, opset: int = 21, **domains: int) -> None:
        self.nodes: list[ir.Node] = []
        self.inputs: list[ir.Value] = []
        self.constants: list[ir.Value] = []
        self.opsets = {"": opset, **{name.replace("_", "."): version for name, version in domains.items()}}
        self.random = np.random.default_rng(0)

    def input(self, *shape: int | str, dtype: ir.DataType = FLOAT) -> ir.Value:
        """An input of the model."""
        value = ir.Value(name=f"x{len(self.inputs)}", type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(value)
        return value

    def constant(self, values: Any, dtype: ir.DataType = FLOAT) -> ir.Value:
        """An initializer."""
        array = np.asarray(values).astype(dtype.numpy())
        name = f"c{len(self.constants)}"
        tensor = ir.tensor(array, dtype=dtype, name=name)
        value = ir.Value(name=name, const_value=tensor, type=ir.TensorType(dtype), shape=ir.Shape(array.shape))
        self.constants.append(value)
        return value

    def weight(self, *shape: int, dtype: ir.DataType = FLOAT) -> ir.Value:
        """An initializer of random numbers: normal, or integers between -7 and 7."""
        normal = self.random.standard_normal(shape)
        return self.constant(normal if dtype in (FLOAT, FLOAT16) else np.clip(np.round(normal * 3), -7, 7), dtype)

    def node(self, kind: str, *inputs: ir.Value | None, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Any operator; its output, or a list of them."""
        node = ir.node(
            kind,
            inputs,
            attributes=attributes,
            domain=domain,
            num_outputs=outputs,
            name=f"{kind}_{len(self.nodes)}",
        )
        for place, value in enumerate(node.outputs):
            value.name = f"{node.name}_{place}"
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else list(node.outputs)

    def scales(self, scale: Any, dtype: ir.DataType) -> list[ir.Value]:
        """A scale and a zero point of its shape."""
        scale = np.asarray(scale, dtype=np.float32)
        return [self.constant(scale), self.constant(np.zeros(scale.shape), dtype)]

    def quantize(self, x: ir.Value, scale: Any = 0.05, dtype: ir.DataType = INT8, **attributes: Any) -> ir.Value:
        """QuantizeLinear."""
        return self.node("QuantizeLinear", x, *self.scales(scale, dtype), **attributes)

    def dequantize(self, x: ir.Value, scale: Any = 0.05, dtype: ir.DataType = INT8, **attributes: Any) -> ir.Value:
        """DequantizeLinear."""
        return self.node("DequantizeLinear", x, *self.scales(scale, dtype), **attributes)

    def qdq(self, x: ir.Value, scale: Any = 0.05, dtype: ir.DataType = INT8, **attributes: Any) -> ir.Value:
        """QuantizeLinear and DequantizeLinear with the same scale."""
        return self.pair(x, *self.scales(scale, dtype), **attributes)

    def pair(self, x: ir.Value, *settings: ir.Value, **attributes: Any) -> ir.Value:
        """QuantizeLinear and DequantizeLinear with a scale and perhaps a zero point that are given."""
        quantized = self.node("QuantizeLinear", x, *settings, **attributes)
        return self.node("DequantizeLinear", quantized, *settings, **attributes)

    def qdq_weight(self, *shape: int, axis: int = 0, dtype: ir.DataType = INT8) -> ir.Value:
        """A float weight, quantized with a scale per slice along ``axis``."""
        return self.qdq(self.weight(*shape), np.full(shape[axis], 0.05), dtype, axis=axis)

    def conv(self, x: ir.Value, *more: ir.Value, **attributes: Any) -> ir.Value:
        """Conv, padded by 1."""
        return self.node("Conv", x, *more, **{"pads": [1, 1, 1, 1], **attributes})

    def model(self, *outputs: ir.Value, dtype: ir.DataType = FLOAT) -> ir.Model:
        """The model with these outputs, of a type that they have if nothing else says it."""
        for value in outputs:
            value.type = value.type or ir.TensorType(dtype)
        graph = ir.Graph(
            self.inputs, outputs, nodes=self.nodes, initializers=self.constants, opset_imports=self.opsets, name="small"
        )
        return ir.Model(graph, ir_version=10)
