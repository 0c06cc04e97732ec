"""Running what ONNX Runtime has no E2M1 for: numbers are rounded to E2M1 in float32, and stored in E4M3, which has all.

Steps of E2M1 are ½ up to 2, 1 up to 4, and 2 up to 6, and ties go to the number whose last bit is zero, so that

    q = round(v · 2) / 2  if |v| < 2,   round(v)  if |v| < 4,   round(v / 2) · 2  else,   v = clamp(x / scale, −6, 6)

with ``Round`` of ONNX, which rounds ties to even, gives the same.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from embedl_deploy.artifact import QUANTIZE, axis_of, block_of, input_of, nodes_of, quantized_type_of

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST = 6.0


def round_to_e2m1(model: "ir.Model") -> bool:
    """Let each QuantizeLinear to E2M1 in blocks of the last axis round in float32, and give E4M3, in place.

    Returns:
        Whether there was one.
    """
    import onnx_ir as ir

    found = False
    for node in list(nodes_of(model, QUANTIZE)):
        if quantized_type_of(node) is not ir.DataType.FLOAT4E2M1 or not block_of(node) or input_of(node, 2) is not None:
            continue
        x, scale, graph = node.inputs[0], node.inputs[1], node.graph
        last = None if x is None or x.shape is None else len(x.shape) - 1
        if x is None or scale is None or graph is None or axis_of(node) not in (-1, last):
            continue
        found = True
        tape = _Tape()
        numbers = tape.rounded(tape.op("Cast", x, to=ir.DataType.FLOAT), scale, block_of(node))
        numbers.dtype = ir.DataType.FLOAT8E4M3FN
        graph.insert_before(node, tape.nodes)
        ir.convenience.replace_all_uses_with(node.outputs[0], numbers, replace_graph_outputs=True)
        graph.remove(node)
    return found


class _Tape:
    """Records nodes."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def op(self, kind: str, *inputs: "ir.Value", **attributes: int) -> "ir.Value":
        """One more node; what it gives."""
        import onnx_ir as ir

        settings = [ir.AttrInt64(name, int(value)) for name, value in attributes.items()]
        self.nodes.append(ir.Node("", kind, list(inputs), settings))
        return self.nodes[-1].outputs[0]

    def constant(self, value: Any, kind: Any = np.float32) -> "ir.Value":
        """A constant."""
        import onnx_ir as ir

        tensor = ir.tensor(np.array(value, kind))
        self.nodes.append(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)]))
        return self.nodes[-1].outputs[0]

    def rounded(self, x: "ir.Value", scale: "ir.Value", block: int) -> "ir.Value":
        """``x`` divided by the scales of its blocks and rounded, in E4M3."""
        import onnx_ir as ir

        shape = self.op("Shape", x)
        blocks = self.constant([-1, block], np.int64)
        in_blocks = self.op("Reshape", x, self.op("Concat", self.op("Shape", x, end=-1), blocks, axis=0))
        scales = self.op("Unsqueeze", self.op("Cast", scale, to=ir.DataType.FLOAT), self.constant([-1], np.int64))
        ratio = self.op("Div", in_blocks, scales)
        ratio = self.op("Clip", ratio, self.constant(-_LARGEST), self.constant(_LARGEST))
        size, two = self.op("Abs", ratio), self.constant(2.0)
        fine = self.op("Div", self.op("Round", self.op("Mul", ratio, two)), two)
        coarse = self.op("Mul", self.op("Round", self.op("Div", ratio, two)), two)
        upper = self.op("Where", self.op("Less", size, self.constant(4.0)), self.op("Round", ratio), coarse)
        numbers = self.op("Where", self.op("Less", size, two), fine, upper)
        return self.op("Cast", self.op("Reshape", numbers, shape), to=ir.DataType.FLOAT8E4M3FN)
