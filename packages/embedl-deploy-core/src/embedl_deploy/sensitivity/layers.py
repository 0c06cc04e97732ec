"""The layers of a quantized model, and the output of each with its own quantizers on float inputs."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from embedl_deploy.graph.lookup import submodule
from embedl_deploy.modules import QuantStub, WeightFakeQuantize
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.reporting.report import QuantizationReport


@dataclass(frozen=True)
class Layer:
    """A module with quantizers, at one call.

    Attributes:
        node: The call.
        path: The module's path.
        kind: Its class.
        group: The same for layers of equal structure, such as those of all blocks of a transformer: the path with its
            numbers left out, the class, and the shapes of its parameters.
        output: The stub in the graph that quantizes its result, if there is one.
    """

    node: fx.Node
    path: str
    kind: str
    group: str
    output: QuantStub | None


def layers_of(model: fx.GraphModule, report: QuantizationReport) -> list[Layer]:
    """The layers that have a quantizer, in graph order."""
    quantized = {point.node for point in report.quantized}
    outputs = {point.node: point.stub for point in report.quantized if point.kind is PointKind.OUTPUT}
    layers = []
    for node in model.graph.nodes:
        if node.op == "call_module" and node.name in quantized:
            path = str(node.target)
            module = submodule(model, path)
            stub = submodule(model, outputs[node.name]) if node.name in outputs else None
            assert stub is None or isinstance(stub, QuantStub)  # placement has put one there
            layers.append(Layer(node, path, type(module).__name__, _group_of(path, module), stub))
    return layers


def _group_of(path: str, module: nn.Module) -> str:
    shapes = ["×".join(map(str, parameter.shape)) for parameter in module.parameters()]
    return " ".join((re.sub(r"\d+", "*", path), type(module).__name__, *shapes))


class OwnQuantizers:
    """Computes layers with their own quantizers alone; all others are taken out while it is in use.

    Args:
        model: A calibrated model.
    """

    def __init__(self, model: fx.GraphModule) -> None:
        self.model = model
        self.quantizers = {
            part: part.quantizer
            for part in model.modules()
            if isinstance(part, QuantStub) and part.quantizer is not None
        }

    @contextmanager
    def taken_out(self) -> Iterator[None]:
        """Within the block no stub of the model has a quantizer."""
        for stub in self.quantizers:
            stub.quantizer = None
        try:
            yield
        finally:
            for stub, quantizer in self.quantizers.items():
                stub.quantizer = quantizer

    def result(
        self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], *, weight: bool, activation: bool
    ) -> Any:
        """What a layer gives.

        Args:
            layer: The layer.
            args: Its exact inputs.
            kwargs: Its exact keyword inputs.
            weight: Whether its weights are quantized.
            activation: Whether what flows into it, through it and out of it is quantized where it has quantizers.
        """
        module = submodule(self.model, layer.path)
        if activation:
            args = tuple(map(self._quantized, layer.node.args, args))
            kwargs = {name: self._quantized(layer.node.kwargs[name], value) for name, value in kwargs.items()}
        with ExitStack() as stack:
            for part in module.modules():
                if part in self.quantizers and (weight if isinstance(part, WeightFakeQuantize) else activation):
                    stack.enter_context(self._filled(part))
            value = module(*args, **kwargs)
        return self.quantizers[layer.output](value) if activation and layer.output in self.quantizers else value

    def _quantized(self, source: Any, value: Any) -> Any:
        """A value as a layer reads it: through the stub in the graph, if it comes from one."""
        if not isinstance(source, fx.Node) or source.op != "call_module":
            return value
        stub = submodule(self.model, str(source.target))
        quantizer = self.quantizers.get(stub) if isinstance(stub, QuantStub) else None
        return value if quantizer is None else quantizer(value)

    @contextmanager
    def _filled(self, stub: Any) -> Iterator[None]:
        stub.quantizer = self.quantizers[stub]
        try:
            yield
        finally:
            stub.quantizer = None
