"""Random graphs of layers, quantized here and there, and how many of their layers rules expect in integers."""

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from embedl_deploy import check
from embedl_deploy_onnxruntime.checks.walks import RECTIFIERS, reads_integers
from support.onnx_files import OnnxFile
from support.onnxruntime_files import conv, numbers, qdq, weight

#: Integer kernels, and the operators that they are made of.
KERNELS = {
    ("Conv",): ("QLinearConv",),
    ("Gemm", "MatMul"): ("QGemm", "QLinearMatMul", "MatMulIntegerToFloat"),
    ("Add",): ("QLinearAdd",),
    ("Mul",): ("QLinearMul",),
    ("Sigmoid",): ("QLinearSigmoid",),
    ("LeakyRelu",): ("QLinearLeakyRelu",),
    ("Concat",): ("QLinearConcat",),
    ("GlobalAveragePool",): ("QLinearGlobalAveragePool",),
}
_IN_FLOAT = ("ORT-01", "ORT-03", "ORT-05", "ORT-08")


class RandomGraph:
    """Maps (1, 8, 6, 6) and sequences (1, 5, 16), to which layers are added one by one."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.file = OnnxFile(self.random.choice([18, 21, 21]))
        self.file.random = np.random.default_rng(seed)
        self.maps = [self.file.input(1, 8, 6, 6)]
        self.rows = [self.file.input(1, 5, 16)]
        self.ends: list[ir.Value] = []

    def model(self) -> ir.Model:
        """Two to seven layers; outputs are all values that nothing reads."""
        layers = [self.convolution, self.function, self.two_maps, self.moved, self.head, self.product, self.reshaped]
        for _ in range(self.random.randint(2, 7)):
            self.random.choice(layers)()
        read = {id(value) for node in self.file.nodes for value in node.inputs}
        made = [value for value in (*self.maps, *self.rows, *self.ends) if value.producer() is not None]
        ends = {id(value): value for value in made if id(value) not in read}
        return self.file.model(*ends.values())

    def quantized(self, value: ir.Value, chance: float) -> ir.Value:
        """A value with Q/DQ, or as it is."""
        maker = value.producer()
        if (maker is not None and maker.op_type == "DequantizeLinear") or self.random.random() > chance:
            return value
        return qdq(self.file, value, self.random.choice([0.03, 0.03, 0.05]), self.random.choice([0, 0, 128, 128, 3]))

    def taken(self, values: list[ir.Value]) -> ir.Value:
        """One of the last values."""
        return self.quantized(self.random.choice(values[-3:]), 0.6)

    def convolution(self) -> None:
        """With a bias or without, with a weight in float or quantized."""
        f = self.file
        more = [weight(f, 8, 8, 3, 3) if self.random.random() < 0.9 else f.weight(8, 8, 3, 3)]
        more += [f.weight(8)] if self.random.random() < 0.4 else []
        self.maps.append(self.quantized(conv(f, self.taken(self.maps), *more), 0.75))

    def function(self) -> None:
        """An activation function."""
        kind = self.random.choice(["Relu", "Clip", "Sigmoid", "LeakyRelu", "HardSwish"])
        limits = [self.file.constant(0.0), self.file.constant(6.0)] if kind == "Clip" else []
        self.maps.append(self.quantized(self.file.node(kind, self.taken(self.maps), *limits), 0.75))

    def two_maps(self) -> None:
        """A sum, a product, or both halves of a concatenation."""
        kind = self.random.choice(["Add", "Mul", "Concat"])
        pair = self.taken(self.maps), self.taken(self.maps)
        y = self.file.node(kind, *pair, **({"axis": 2} if kind == "Concat" else {}))
        self.maps.append(self.quantized(self._cut(y, 2) if kind == "Concat" else y, 0.75))

    def moved(self) -> None:
        """Numbers that are only moved."""
        f, x = self.file, self.taken(self.maps)
        moves: list[Callable[[], ir.Value]] = [
            lambda: f.node("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4),
            lambda: f.node("Transpose", x, perm=[0, 1, 3, 2]),
            lambda: self._cut(x, 3),
            lambda: self._cut(self._cut(f.node("Resize", x, None, f.constant([1.0, 1, 2, 2]), mode="nearest"), 2), 3),
            lambda: f.node("Concat", *f.node("Split", x, outputs=2, axis=1, num_outputs=2), axis=1),
        ]
        self.maps.append(self.quantized(self.random.choice(moves)(), 0.75))

    def head(self) -> None:
        """Pooled, flattened, classified."""
        f = self.file
        y = self.quantized(f.node("GlobalAveragePool", self.taken(self.maps)), 0.5)
        flat = f.node("Flatten", y) if self.random.random() < 0.5 else f.node("Reshape", y, numbers(f, 1, 8))
        bias = [f.weight(8)] if self.random.random() < 0.5 else []
        y = f.node("Gemm", self.quantized(flat, 0.5), weight(f, 8, 8), *bias, transB=1)
        self.ends.append(self.quantized(y, 0.5))

    def product(self) -> None:
        """A product, perhaps with a bias, of one dimension or two."""
        f = self.file
        y = f.node("MatMul", self.taken(self.rows), weight(f, 16, 16, axis=1))
        shape = self.random.choice([None, (16,), (16,), (1, 16)])
        self.rows.append(self.quantized(y if shape is None else f.node("Add", y, f.weight(*shape)), 0.6))

    def reshaped(self) -> None:
        """A sequence in its own shape, or a function of it in float."""
        f, x = self.file, self.taken(self.rows)
        y = f.node("Softplus", x) if self.random.random() < 0.5 else f.node("Reshape", x, numbers(f, 1, 5, 16))
        self.rows.append(self.quantized(y, 0.5))

    def _cut(self, x: ir.Value, axis: int) -> ir.Value:
        f = self.file
        return f.node("Slice", x, numbers(f, 0), numbers(f, 6), numbers(f, axis))


def expected_integers(model: ir.Model) -> Counter[str]:
    """How many operators of each kind read integers, and have no finding that says that they are in float."""
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in check(model, "onnxruntime").findings:
        found.setdefault(finding.node, []).append((finding.rule, finding.message))
    counts: Counter[str] = Counter()
    for node in model.graph.all_nodes():
        said = found.get(node.name or "", [])
        by_itself = any("quantizes it by itself" in message for _, message in said)
        in_float = any(rule in _IN_FLOAT and "quantizes it by itself" not in message for rule, message in said)
        if any((node.op_type in kinds) for kinds in KERNELS) and (by_itself or reads_integers(node)):
            counts[node.op_type] += not in_float and not _with_rectifier(node, found)
    return counts


def _with_rectifier(node: ir.Node, found: dict[str, list[tuple[str, str]]]) -> bool:
    """Whether a rectifier that is not left out is behind a node, perhaps behind a Transpose."""
    readers = [use.node for use in node.outputs[0].uses()]
    if len(readers) != 1:
        return False
    if readers[0].op_type == "Transpose":
        return _with_rectifier(readers[0], found)
    return readers[0].op_type in RECTIFIERS and any(
        rule == "ORT-02" for rule, _ in found.get(readers[0].name or "", [])
    )
