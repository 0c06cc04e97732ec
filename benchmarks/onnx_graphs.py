"""Writes small ONNX graphs in float16 node by node, so that one thing can be written in several ways."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_TYPES = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
_RANDOM = np.random.default_rng(0)


def random(*shape: int) -> Any:
    """Normal numbers in float16."""
    return _RANDOM.standard_normal(shape).astype(np.float16)


class Graph:
    """A graph with one input in float16.

    Args:
        shape: Of the input.
        opset: Version of the operator set.
    """

    def __init__(self, *shape: int, opset: int = 20) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.input = "x"
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT16, shape)]

    def constant(self, array: Any) -> str:
        """An initializer."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def call(self, kind: str, *operands: Any, outputs: int = 1, **attributes: Any) -> Any:
        """A node: the name of its output, or a list if there are several; arrays become constants."""
        label = f"{kind}_{len(self.nodes)}"
        names = [f"{label}_{index}" for index in range(outputs)]
        given = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        self.nodes.append(helper.make_node(kind, given, names, name=label, **attributes))
        return names[0] if outputs == 1 else names

    def reshape(self, x: str, *shape: int) -> str:
        """Another shape."""
        return str(self.call("Reshape", x, np.array(shape)))

    def transpose(self, x: str, *axes: int) -> str:
        """Another order of axes."""
        return str(self.call("Transpose", x, perm=axes))

    def scaled(self, x: str, by: float) -> str:
        """Times a number."""
        return str(self.call("Mul", x, np.float16(by)))

    def items(self, x: str, axis: int, count: int = 3) -> list[str]:
        """The entries along an axis."""
        return [str(self.call("Gather", x, np.int64(index), axis=axis)) for index in range(count)]

    def layer_norm(self, x: str, width: int) -> str:
        """A layer norm over the last axis."""
        ones = np.ones(width, np.float16)
        return str(self.call("LayerNormalization", x, ones, ones, axis=-1, epsilon=1e-6))

    def quantized(self, x: str, number_format: str | None, scale: float = 0.05) -> str:
        """Quantized and dequantized, with one scale; as it is without a format."""
        return x if number_format is None else self._rounded(x, number_format, np.float16(scale))

    def weight(self, *shape: int, number_format: str | None = None, per_channel: bool = True) -> str:
        """A matrix, with a scale for each column or one."""
        name = self.constant(random(*shape) / np.float16(shape[-2] ** 0.5))
        if number_format is None:
            return name
        scale = np.full(shape[-1], 0.01, np.float16) if per_channel else np.float16(0.01)
        return self._rounded(name, number_format, scale)

    def linear(
        self, x: str, width: int, out: int, number_format: str | None = None, *, bias: bool = True, **how: bool
    ) -> str:
        """A product with a weight in a format, and a sum with a bias."""
        product = self.call("MatMul", x, self.weight(width, out, number_format=number_format, **how))
        return str(self.call("Add", product, random(out)) if bias else product)

    def _rounded(self, x: str, number_format: str, scale: Any) -> str:
        zero, axis = f"zero_{len(self.constants)}", {} if np.ndim(scale) == 0 else {"axis": 1}
        raw = bytes(int(np.size(scale)))
        self.constants.append(helper.make_tensor(zero, _TYPES[number_format], np.shape(scale), raw, raw=True))
        grid = self.constant(scale)
        return str(
            self.call("DequantizeLinear", self.call("QuantizeLinear", x, grid, zero, **axis), grid, zero, **axis)
        )

    def save(self, path: Path, output: str) -> None:
        """Write a file with one output."""
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT16, None)]
        graph = helper.make_graph(self.nodes, "form", self.inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", self.opset)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
