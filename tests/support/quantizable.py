"""Small models to quantize, with what is asked of them and of their files."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from embedl_deploy import TransformationResult, transform
from embedl_deploy.quantize import QuantConfig, Quantizer, calibrate, insert_qdq
from support.nets import net, random_input
from support.small_patterns import QUANTIZABLE

#: Ways to quantize, as the options of ``quantize``.
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "frozen": {"freeze_weights": True},
    "equalization": {"equalization": True},
    "smoothing": {"smooth_quant": 0.5},
    "bias correction": {"bias_correction": True},
    "learned rounding": {"learned_rounding": True},
}


def residual_block() -> nn.Module:
    """A block with a downsampling shortcut, pooling and a classifier: 3 channels to 5 classes."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.down_bn(self.down(x))
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)) + shortcut)
        return self.fc(self.pool(y).flatten(1))

    return net(
        forward,
        conv1=nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        bn1=nn.BatchNorm2d(8),
        conv2=nn.Conv2d(8, 8, 3, padding=1),
        bn2=nn.BatchNorm2d(8),
        down=nn.Conv2d(3, 8, 1, stride=2, bias=False),
        down_bn=nn.BatchNorm2d(8),
        relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1),
        fc=nn.Linear(8, 5),
    )


def perceptron(features: int = 12, hidden: int = 16) -> nn.Module:
    """Two matrix products with a ReLU between them; 4 outputs."""
    return net(
        lambda self, x: self.second(torch.relu(self.first(x))),
        first=nn.Linear(features, hidden),
        second=nn.Linear(hidden, 4),
    )


#: For :func:`residual_block`.
IMAGES = random_input(4, 3, 8, 8)
#: For :func:`perceptron`.
ROWS = random_input(6, 12)


def fused(model: nn.Module, *args: torch.Tensor) -> TransformationResult:
    """Transform with the small patterns."""
    return transform(model, args or None, patterns=QUANTIZABLE)


def inserted(model: nn.Module, config: QuantConfig | None = None) -> Any:
    """Transformed, with quantizers that have no scales yet."""
    result = fused(model)
    return insert_qdq(result.model, result.matches, config)


def calibrated(model: nn.Module, data: torch.Tensor, config: QuantConfig | None = None) -> Any:
    """Transformed and calibrated with one batch."""
    quantized = inserted(model, config)
    calibrate(quantized, [data])
    return quantized


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the state."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states hold the same names and bits; NaN, as of a scale that is not known, equals itself."""
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name].nan_to_num(7.5), b[name].nan_to_num(7.5)) for name in a
    )


def scales_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The scales of all quantizers, by path."""
    return {name: part.scale.detach().clone() for name, part in model.named_modules() if isinstance(part, Quantizer)}


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes in one thread: with tensors this small, more get in each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class OnnxGraph:
    """An ONNX file, to be asked about its quantizers.

    Attributes:
        opset: Version of the operator set.
        nodes: All nodes, in order.
        constants: Values of initializers and constants, by name.
        producer: The node that gives a value, by the value's name.
    """

    def __init__(self, path: Any) -> None:
        model = onnx.load(path)
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self.nodes = list(model.graph.node)
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.initializers |= {n.output[0]: n.attribute[0].t for n in self.of("Constant")}
        self.constants = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in self.initializers.items()}
        self.producer = {output: node for node in self.nodes for output in node.output}

    def of(self, *kinds: str) -> list[onnx.NodeProto]:
        """The nodes of some operator types."""
        return [node for node in self.nodes if node.op_type in kinds]

    def attribute(self, node: onnx.NodeProto, name: str, default: Any = None) -> Any:
        """A node's attribute."""
        return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)

    def type_of(self, name: str) -> str:
        """Element type of a constant, in ONNX's words."""
        return str(onnx.TensorProto.DataType.Name(self.initializers[name].data_type))

    def dequantized(self, node: onnx.NodeProto, index: int) -> onnx.NodeProto | None:
        """The DequantizeLinear in front of an input, through a transposition, or ``None``."""
        before = self.producer.get(node.input[index])
        while before is not None and before.op_type in ("Transpose", "Reshape"):
            before = self.producer.get(before.input[0])
        return before if before is not None and before.op_type == "DequantizeLinear" else None

    def is_constant(self, node: onnx.NodeProto) -> bool:
        """Whether a DequantizeLinear is one of a weight: of a constant, or of one that is quantized in the graph."""
        before = self.producer.get(node.input[0])
        if before is not None and before.op_type in ("QuantizeLinear", "Cast"):
            return before.input[0] in self.constants
        return node.input[0] in self.constants

    def check_quantizers(self, *, zero: bool = True) -> None:
        """Check what TensorRT asks of every QuantizeLinear and DequantizeLinear (facts, section 5, rules 1 to 11).

        Args:
            zero: Whether zero points have to be zero.
        """
        for node in self.of("QuantizeLinear", "DequantizeLinear"):
            scale, zero_point = (self.constants[name] for name in node.input[1:3])
            assert np.isfinite(scale.astype(np.float32)).all() and (scale.astype(np.float32) > 0).all()
            assert scale.shape == zero_point.shape
            assert not zero or (zero_point.astype(np.float32) == 0).all()
            axis, block = self.attribute(node, "axis", 1), self.attribute(node, "block_size", 0)
            stored = self.constants.get(node.input[0])
            if stored is not None and scale.ndim == 1:
                assert stored.shape[axis] == scale.shape[0]
            assert (scale.ndim > 1) is (block > 0)
        assert not [n.op_type for n in self.nodes if n.op_type.startswith("QLinear") or n.op_type.endswith("Integer")]
        for node in self.of("Conv", "ConvTranspose", "Gemm", "MatMul"):
            assert all(self.dequantized(node, 2) is None for _ in node.input[2:]), "a bias is quantized"
