"""A small network to tune, and a compiler for it whose engines are known beforehand."""

import math

import onnx_ir as ir
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.compiling import CompileResult
from embedl_deploy.engine import LayerKind
from embedl_deploy.errors import CompileError
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig
from support.engines import layer, report, tensor


class Residual(nn.Module):
    """Convolutions with a residual sum, pooled and classified: four groups of layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = torch.relu(block(x) + x)
        return self.head(x.mean((2, 3)))


def transformed(kind, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    return transform(kind().eval(), x, backend="tensorrt"), x


FP8 = QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8, per_channel=True))

#: What the compiler below makes of a convolution or product: bytes in float16, and in INT8.
COSTS = {"stem": (30, 40), "blocks.0": (60, 20), "blocks.1": (60, 20), "head": (10, 5)}
PER_QUANTIZER = 3


class Chip:
    """Takes the place of the compiler: bytes by layer, and some for each quantizer of an activation."""

    def __init__(self, breaks_at=math.inf, refuses=lambda model: False, costs=None):
        self.builds, self.breaks_at, self.refuses = 0, breaks_at, refuses
        self.costs = costs or (lambda node, name, precision: COSTS[name][precision != "float16"])

    def __call__(self, path, engine, **settings):
        if self.builds >= self.breaks_at:
            raise KeyboardInterrupt
        self.builds += 1
        graph = ir.load(path).graph
        if self.refuses(graph):
            raise CompileError("The compiler refuses it.")
        layers = []
        for node in graph:
            scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
            name = next((name for name in COSTS if f"'{name}'" in scopes), None)
            if node.op_type in ("Conv", "MatMul", "Gemm") and name:
                layers.append(made(name, self.costs(node, name, precision_of(node.inputs[1]))))
            elif node.op_type == "QuantizeLinear" and node.inputs[0].const_value is None:
                layers.append(made("", PER_QUANTIZER))
        return CompileResult(engine, engine, report(*layers, target=settings["target"]))


def precision_of(weight):
    """The number format that a weight was rounded to."""
    producer = weight.producer()
    while producer is not None and producer.op_type == "Transpose":
        producer = producer.inputs[0].producer()
    return "float16" if producer is None else producer.inputs[2].dtype.name.lower()


def made(module, size):
    sides = {"inputs": (tensor(size, dtype="int8"),), "outputs": ()}
    return layer(f"of {module}", LayerKind.CONVOLUTION, modules=(module,) if module else (), **sides)
