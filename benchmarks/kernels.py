"""How long ONNX Runtime's integer kernels take beside those of float32; prints a table.

    python benchmarks/kernels.py [--rounds 30]

The operators that check rules ORT-10, ORT-11, ORT-15, ORT-17 and ORT-18 are about, alone, on inputs that are integers
already. One thread; the variants of an operator in turn, the shortest of all rounds, which other programs on the
machine disturb least.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from rich.console import Console
from rich.table import Table

UINT8, INT8, FLOAT = ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.FLOAT


class Graph:
    """One operator in a type of its activations and one of its weight; FLOAT for both has no Q/DQ."""

    def __init__(self, activation: ir.DataType, weight: ir.DataType) -> None:
        self.activation, self.of_weight = activation, weight
        self.nodes: list[ir.Node] = []
        self.inputs: list[ir.Value] = []
        self.constants: list[ir.Value] = []

    def constant(self, values: Any, dtype: ir.DataType = FLOAT) -> ir.Value:
        """An initializer."""
        tensor = ir.tensor(np.asarray(values).astype(dtype.numpy()), name=f"c{len(self.constants)}")
        made = ir.Value(name=tensor.name, const_value=tensor, type=ir.TensorType(dtype), shape=ir.Shape(tensor.shape))
        self.constants.append(made)
        return made

    def node(self, kind: str, *inputs: ir.Value, outputs: int = 1, **attributes: Any) -> Any:
        """Any operator; its output, or a list of them."""
        made = ir.node(kind, inputs, attributes=attributes, num_outputs=outputs, name=f"n{len(self.nodes)}")
        for place, value in enumerate(made.outputs):
            value.name = f"{made.name}_{place}"
        self.nodes.append(made)
        return made.outputs[0] if outputs == 1 else list(made.outputs)

    def input(self, *shape: int, dtype: ir.DataType | None = None) -> ir.Value:
        """An input in the type of the activations, dequantized."""
        dtype = dtype or self.activation
        made = ir.Value(name=f"x{len(self.inputs)}", type=ir.TensorType(dtype), shape=ir.Shape(shape))
        self.inputs.append(made)
        return made if dtype in (FLOAT, ir.DataType.INT64) else self._settled("DequantizeLinear", made, dtype)

    def weight(self, *shape: int, axis: int = 0) -> ir.Value:
        """A stored weight with a scale for each slice along an axis, dequantized."""
        random = np.random.default_rng(0)
        if self.of_weight is FLOAT:
            return self.constant(random.standard_normal(shape) * 0.05)
        zero = 128 if self.of_weight is UINT8 else 0
        stored = self.constant(random.integers(-64, 65, shape) + zero, self.of_weight)
        zeros = self.constant(np.full(shape[axis], zero), self.of_weight)
        return self.node("DequantizeLinear", stored, self.constant(np.full(shape[axis], 0.002)), zeros, axis=axis)

    def output(self, value: ir.Value) -> ir.Value:
        """Quantized to the type of the activations."""
        return value if self.activation is FLOAT else self._settled("QuantizeLinear", value, self.activation)

    def _settled(self, kind: str, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        return self.node(kind, value, self.constant(0.02), self.constant(128 if dtype is UINT8 else 0, dtype))


_NUMPY = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(int64)": np.int64}
Build = Callable[[Graph], ir.Value]


def convolution(channels: int, size: int, groups: int = 1) -> Build:
    """Of as many channels as there are."""

    def build(g: Graph) -> ir.Value:
        weight = g.weight(channels, channels // groups, 3, 3)
        return g.output(g.node("Conv", g.input(1, channels, size, size), weight, pads=[1] * 4, group=groups))

    return build


def function(kind: str, *shape: int, **attributes: Any) -> Build:
    """Of one tensor."""
    return lambda g: g.output(g.node(kind, g.input(*shape), **attributes))


def table(g: Graph) -> ir.Value:
    """Rows of an embedding."""
    rows = g.weight(30_000, 384, axis=0)
    return g.node("Gather", rows, g.input(64, dtype=ir.DataType.INT64))


def product(g: Graph) -> ir.Value:
    """With a bias; in INT8 by DynamicQuantizeLinear, in two spellings: UINT8 stands for MatMulInteger."""
    x, bias = g.node("Identity", Graph.input(g, 197, 768, dtype=FLOAT)), g.constant(np.ones(3072))
    if g.activation is FLOAT:
        return g.node("Add", g.node("MatMul", x, g.weight(768, 3072, axis=1)), bias)
    quantized, scale, zero = g.node("DynamicQuantizeLinear", x, outputs=3)
    if g.activation is INT8:
        weight = g.weight(768, 3072, axis=1)
        return g.node("Add", g.node("MatMul", g.node("DequantizeLinear", quantized, scale, zero), weight), bias)
    stored = g.constant(np.random.default_rng(0).integers(-64, 65, (768, 3072)), INT8)
    sums = g.node("Cast", g.node("MatMulInteger", quantized, stored, zero, g.constant(0, INT8)), to=1)
    return g.node("Add", g.node("Mul", sums, g.node("Mul", scale, g.constant(np.full(3072, 0.002)))), bias)


Variants = dict[str, tuple[ir.DataType, ir.DataType]]
_BOTH: Variants = {"float32": (FLOAT, FLOAT), "UINT8": (UINT8, INT8)}
_FOUR: Variants = {**_BOTH, "UINT8, UINT8 weight": (UINT8, UINT8), "INT8": (INT8, INT8)}
CASES: dict[str, tuple[Build, Variants]] = {
    "Conv 3×3, 64 channels, 56×56": (convolution(64, 56), _FOUR),
    **{f"Conv 3×3, 128 in groups of {n}, 28×28": (convolution(128, 28, 128 // n), _BOTH) for n in (4, 8, 16, 32)},
    "Softmax, 12×197×197": (function("Softmax", 12, 197, 197), _BOTH),
    "AveragePool 2×2, 64×56×56": (function("AveragePool", 1, 64, 56, 56, kernel_shape=[2, 2], strides=[2, 2]), _BOTH),
    "AveragePool 3×3, 64×56×56": (function("AveragePool", 1, 64, 56, 56, kernel_shape=[3, 3]), _BOTH),
    "64 rows of a table of 30,000×384": (table, {"float32": (FLOAT, FLOAT), "UINT8 table": (FLOAT, UINT8)}),
    "197×768 by 768×3072 with a bias": (
        product,
        {"float32": (FLOAT, FLOAT), "MatMulInteger": (UINT8, INT8), "DequantizeLinear and MatMul": (INT8, INT8)},
    ),
}


def session(build: Build, activation: ir.DataType, weight: ir.DataType) -> Callable[[], object]:
    """Makes a session and its inputs; the function runs them."""
    graph = Graph(activation, weight)
    y = build(graph)
    reader = y.producer()
    integer = reader is not None and reader.op_type == "QuantizeLinear"
    y.type = ir.TensorType(activation if integer else FLOAT)
    made = ir.Graph(graph.inputs, [y], nodes=graph.nodes, initializers=graph.constants, opset_imports={"": 20})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if activation is INT8:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    written = ir.serde.serialize_model(ir.Model(made, ir_version=10)).SerializeToString()
    opened = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    inputs = {each.name: random.integers(0, 100, each.shape).astype(_NUMPY[each.type]) for each in opened.get_inputs()}
    return lambda: opened.run(None, inputs)


def shortest(runs: list[Callable[[], object]], rounds: int) -> list[float]:
    """Seconds of the shortest run of each, in turn."""
    found = [float("inf")] * len(runs)
    for _ in range(rounds):
        for place, run in enumerate(runs):
            run()
            for _ in range(3):
                start = time.perf_counter()
                run()
                found[place] = min(found[place], time.perf_counter() - start)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="how often each is run")
    rounds = parser.parse_args().rounds
    result = Table("operator", "in", "µs", "times float32", title=f"ONNX Runtime {onnxruntime.__version__}, one thread")
    for name, (build, variants) in CASES.items():
        times = shortest([session(build, *types) for types in variants.values()], rounds)
        for place, (variant, seconds) in enumerate(zip(variants, times, strict=True)):
            result.add_row("" if place else name, variant, f"{seconds * 1e6:,.0f}", f"{seconds / times[0]:.2f}")
    Console(width=120).print(result)


if __name__ == "__main__":
    main()
