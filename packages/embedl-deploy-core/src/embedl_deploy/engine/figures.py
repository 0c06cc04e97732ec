"""Totals over an engine's layers: kernels, bytes, element types, layers that are not in low precision."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from embedl_deploy.engine.layers import EngineLayer, EngineTensor, LayerKind
from embedl_deploy.engine.timing import Timing
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class FloatLayer:
    """A convolution or matrix product that the engine runs in a type of 16 bits or more.

    Attributes:
        layer: Name of the engine's layer.
        kind: What it does.
        precision: The type that it computes in.
        module: Path of the PyTorch module, or ``None`` where the file says nothing.
        reason: Why, as far as the ONNX file and the engine tell.
    """

    layer: str
    kind: LayerKind
    precision: str
    module: str | None
    reason: str


@checked
@dataclass(frozen=True)
class EngineFigures:
    """What a compiler made of an ONNX file, in data and sums; :class:`EngineReport` adds text and JSON.

    Attributes:
        model: Name of the ONNX file.
        compiler: Name and version of the compiler: figures of one say little about another.
        target: What it was compiled for.
        layers: In the order in which they run.
        engine_bytes: Size of the engine.
        build_seconds: How long the compiler took.
        float_layers: What runs in 16 bits or more and why; empty for a file without quantizers.
        messages: Warnings of the compiler.
        usual_inputs: The inputs with open dimensions, in the usual shapes that the engine was compiled for: bytes and
            operations are those at these shapes, and so are times. Empty where all sizes are fixed.
        timing: The runs that were timed; ``None`` where nothing was.
    """

    model: str
    compiler: str
    target: str
    layers: tuple[EngineLayer, ...]
    engine_bytes: int
    build_seconds: float
    float_layers: tuple[FloatLayer, ...] = ()
    messages: tuple[str, ...] = ()
    usual_inputs: tuple[EngineTensor, ...] = ()
    timing: Timing | None = None

    @property
    def seconds(self) -> float | None:
        """How long a run takes, the median of those that were timed; ``None`` where nothing was."""
        return None if self.timing is None else self.timing.median

    @property
    def kernels(self) -> int:
        """Number of layers that compute or move something."""
        return sum(layer.is_kernel for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes of activations that all layers read and write; at least, where there are :attr:`unknown_tensors`."""
        return sum(layer.bytes_read + layer.bytes_written for layer in self.layers)

    @property
    def unknown_tensors(self) -> tuple[EngineTensor, ...]:
        """Activations whose size is not known, each time that a layer reads or writes one."""
        return tuple(t for layer in self.layers for t in (*layer.inputs, *layer.outputs) if t.is_unknown)

    @property
    def usual_shapes(self) -> str:
        """The shapes that bytes and operations hold for, in words; empty where all sizes are fixed."""
        return ", ".join(f"{tensor.name} {'×'.join(map(str, tensor.shape))}" for tensor in self.usual_inputs)

    @property
    def weight_bytes(self) -> int:
        """Bytes of constants that all layers read."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def activation_bytes_by_type(self) -> dict[str, int]:
        """Activation bytes by element type, most first."""
        found: Counter[str] = Counter()
        for layer in self.layers:
            for tensor in (*layer.inputs, *layer.outputs):
                found[tensor.dtype] += tensor.bytes
        return dict(found.most_common())

    @property
    def reformats(self) -> tuple[EngineLayer, ...]:
        """Layers that change only type or layout."""
        return tuple(layer for layer in self.layers if layer.is_reformat)

    @property
    def weighted_by_precision(self) -> dict[tuple[LayerKind, str], int]:
        """How many convolutions, matrix products and attentions run in which type."""
        return dict(Counter((layer.kind, layer.precision) for layer in self.layers if layer.kind.is_weighted))

    @checked
    def layers_of(self, module: str) -> tuple[EngineLayer, ...]:
        """The layers that a PyTorch module, or a module in it, went into."""
        return tuple(
            layer for layer in self.layers if any(m == module or m.startswith(f"{module}.") for m in layer.modules)
        )

    @property
    def totals(self) -> dict[str, Any]:
        """What it is of, and the sums over all layers."""
        own = ("model", "compiler", "target", "engine_bytes", "build_seconds")
        sums = ("kernels", "activation_bytes", "weight_bytes", "activation_bytes_by_type")
        weighted = [
            {"kind": kind.value, "precision": precision, "count": count}
            for (kind, precision), count in self.weighted_by_precision.items()
        ]
        return {
            **{name: getattr(self, name) for name in (*own, *sums)},
            "reformats": len(self.reformats),
            "weighted_by_precision": weighted,
            "seconds": self.seconds,
        }
