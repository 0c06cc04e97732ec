"""The description of a quantized file for Lattice's compiler: layer by layer, in fixed point.

A number in a tensor with f fractional bits is an integer of eight bits times 2⁻ᶠ, which is a scale of 2⁻ᶠ. A product of
f₁ and f₂ fractional bits has f₁ + f₂ of them; the engine adds such products, and the bias, in a wider accumulator, and
shifts the sum to the right by f₁ + f₂ − f₃ bits for an output with f₃.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from embedl_deploy.artifact import array, fixed_sizes_of, input_of, sizes_of, users_module_of
from embedl_deploy_sensai_stub.kernels import AVERAGES, QUANTIZERS, RESHAPES, WEIGHTED, Kernel, kernels_of

if TYPE_CHECKING:
    import onnx_ir as ir

_KINDS = {"Gemm": "linear", "MatMul": "linear", "MaxPool": "max pooling", "Add": "sum"}


@dataclass(frozen=True)
class Tensor:
    """A tensor.

    Attributes:
        name: Its name in the ONNX file: that of the numbers before the quantizers.
        shape: Sizes, ``None`` where one is open; ``None`` if the file does not tell.
        fractional_bits: Of its eight bits; negative for a scale above one. Of a bias those of the accumulator that it
            is added to. ``None`` where the file has no scale for it, as for outputs of the model.
    """

    name: str
    shape: tuple[int | None, ...] | None
    fractional_bits: int | None


@dataclass(frozen=True)
class Layer:
    """What the engine runs as one; for the kind ``"reshape"``, what changes no number.

    Attributes:
        name: Name of the ONNX node that it is named after.
        kind: What it does.
        module: Path of the PyTorch module that it came from.
        inputs: Tensors that it reads.
        output: The tensor that it writes.
        weight: Its weight.
        bias: Its bias, float in the file.
        relu: Whether a ReLU is in it.
        accumulator_fractional_bits: Of sums of products; ``None`` where nothing is multiplied.
        shift: Bits by which the accumulator is shifted to the right; ``None`` where it is not known.
        pixels: By how many numbers an average divides.
        attributes: Of the ONNX node: strides, padding, groups.
        onnx_nodes: The nodes in it.
    """

    name: str
    kind: str
    module: str | None
    inputs: tuple[Tensor, ...]
    output: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    relu: bool = False
    accumulator_fractional_bits: int | None = None
    shift: int | None = None
    pixels: int | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    onnx_nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HandOver:
    """A file, as the engine would run it.

    Attributes:
        inputs: Tensors to be rounded to eight bits before the engine sees them.
        outputs: Tensors that it gives.
        layers: In the order in which they run.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]

    @property
    def outside(self) -> tuple[str, ...]:
        """What is not for the engine to do, or not said by the file, in sentences."""
        told = [
            f"Round the input {tensor.name} to eight bits, {tensor.fractional_bits} of them fractional."
            if tensor.fractional_bits is not None
            else f"Say how to store the input {tensor.name}: the file does not have a single scale for it."
            for tensor in self.inputs
        ]
        told += [
            f"Pass {layer.inputs[0].name} on as {layer.output.name}: the same numbers, in the order (N, C, H, W)."
            for layer in self.layers
            if layer.kind == "reshape"
        ]
        told += [
            f"Read the output {tensor.name} with {tensor.fractional_bits} fractional bits."
            if tensor.fractional_bits is not None
            else f"Say how to store the output {tensor.name}: the file has no scale for it."
            for tensor in self.outputs
        ]
        return tuple(told)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"outside": list(self.outside), **asdict(self)}


def hand_over(model: "ir.Model") -> HandOver:
    """Describe a file that keeps all rules.

    Args:
        model: The file, with shapes where they can be inferred.
    """
    kernels = {id(kernel.head): kernel for kernel in kernels_of(model)}
    layers = []
    for node in model.graph:
        if id(node) in kernels:
            layers.append(_layer(kernels[id(node)]))
        elif node.op_type in RESHAPES and _is_data(node):
            source = _tensor(node.inputs[0])
            layers.append(Layer(_name(node), "reshape", users_module_of(node), (source,), _tensor(node.outputs[0])))
    inputs, outputs = ([_tensor(value) for value in values] for values in (model.graph.inputs, model.graph.outputs))
    return HandOver(tuple(inputs), tuple(outputs), tuple(layers))


def _layer(kernel: Kernel) -> Layer:
    head, output = kernel.head, _tensor(kernel.output)
    inputs = tuple(_tensor(value) for value in kernel.inputs)
    attributes = {name: found.value for name, found in head.attributes.items() if not found.is_ref()}
    layer: dict[str, Any] = {}
    if head.op_type in WEIGHTED:
        layer = _products(kernel, inputs[0], output)
    elif head.op_type in AVERAGES:
        sizes = fixed_sizes_of(head.inputs[0])
        layer = {"pixels": None if sizes is None else math.prod(sizes[2:])}
    return Layer(
        name=_name(head),
        kind=_kind(head),
        module=users_module_of(head),
        inputs=inputs,
        output=output,
        relu=any(node.op_type == "Relu" for node in kernel.nodes),
        attributes=attributes,
        onnx_nodes=tuple(_name(node) for node in kernel.nodes),
        **layer,
    )


def _products(kernel: Kernel, source: Tensor, output: Tensor) -> dict[str, Any]:
    """What only layers with a weight have."""
    weight = _tensor(kernel.head.inputs[1])
    total = None
    if source.fractional_bits is not None and weight.fractional_bits is not None:
        total = source.fractional_bits + weight.fractional_bits
    biases = [_bias(node) for node in kernel.nodes]
    bias = next((value for value in biases if value is not None), None)
    return {
        "weight": weight,
        "bias": None if bias is None else Tensor(bias.name or "", sizes_of(bias), total),
        "accumulator_fractional_bits": total,
        "shift": None if total is None or output.fractional_bits is None else total - output.fractional_bits,
    }


def _bias(node: "ir.Node") -> "ir.Value | None":
    if node.op_type == "Add":
        return next((value for value in node.inputs if array(value) is not None), None)
    return input_of(node, 2) if node.op_type in ("Conv", "Gemm") else None


def _kind(node: "ir.Node") -> str:
    if node.op_type == "Conv":
        weight = fixed_sizes_of(node.inputs[1])
        return "depthwise convolution" if weight is not None and weight[1] == 1 < weight[0] else "convolution"
    return "global average pooling" if node.op_type in AVERAGES else _KINDS[node.op_type]


def _is_data(node: "ir.Node") -> bool:
    """Whether a node changes the shape of numbers from the engine, not of a weight or of sizes."""
    value = _stored(node.inputs[0])
    kind = node.outputs[0].dtype
    return array(value) is None and (kind is None or kind.is_floating_point())


def _tensor(value: "ir.Value | None") -> Tensor:
    assert value is not None  # no operator of the engine does without
    stored = _stored(value)
    bits = set(_bits(value))  # readers that do not agree leave it open
    return Tensor(stored.name or "", sizes_of(value), bits.pop() if len(bits) == 1 else None)


def _stored(value: "ir.Value | None") -> "ir.Value":
    """The numbers before the quantizers."""
    assert value is not None
    while (maker := value.producer()) is not None and maker.op_type in QUANTIZERS:
        before = input_of(maker, 0)
        assert before is not None  # a quantizer has an input
        value = before
    return value


def _bits(value: "ir.Value") -> "Iterator[int]":
    """Fractional bits that a tensor is given: by the quantizer that made it, or by those that read it.

    Max pooling and another shape change no number, so what is quantized after them is quantized in front as well.
    """
    maker = value.producer()
    if maker is not None and maker.op_type in QUANTIZERS:
        yield _fractional_bits(maker)
        return
    for use in value.uses():
        if use.node.op_type == "QuantizeLinear" and use.idx == 0:
            yield _fractional_bits(use.node)
        elif use.node.op_type in RESHAPES or use.node.op_type == "MaxPool":
            yield from _bits(use.node.outputs[0])


def _fractional_bits(quantizer: "ir.Node") -> int:
    """The f of a scale 2⁻ᶠ, which is 0.5 · 2¹⁻ᶠ."""
    scale = array(input_of(quantizer, 1))
    assert scale is not None  # rule SENSAI-01 has looked
    return 1 - math.frexp(float(scale.ravel()[0]))[1]


def _name(node: "ir.Node") -> str:
    return node.name or next((value.name for value in node.outputs if value.name), "")
