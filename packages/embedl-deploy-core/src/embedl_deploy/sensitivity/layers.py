"""The layers of a quantized model, and the output of each with some of its own quantizers on float inputs."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.lookup import submodule
from embedl_deploy.modules import QuantStub
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.reporting.report import PointReport, QuantizationReport


@dataclass(frozen=True)
class Layer:
    """A module with quantizers, at one call.

    Attributes:
        node: The call.
        path: The module's path.
        kind: Its class.
        group: The same for layers of equal structure, such as those of all blocks of a transformer: the path with its
            numbers left out, the class, and the shapes of its parameters. Layers that share a parameter are in the
            group of the first.
        points: Its quantized points.
    """

    node: fx.Node
    path: str
    kind: str
    group: str
    points: tuple[PointReport, ...]

    @property
    def weights(self) -> tuple[PointReport, ...]:
        """Those of its points that are weights."""
        return tuple(point for point in self.points if point.kind is PointKind.WEIGHT)

    @property
    def activations(self) -> tuple[PointReport, ...]:
        """Those of its points that are not weights."""
        return tuple(point for point in self.points if point.kind is not PointKind.WEIGHT)


def layers_of(model: fx.GraphModule, report: QuantizationReport) -> list[Layer]:
    """The layers that have a quantizer, in graph order."""
    points: dict[str, list[PointReport]] = {}
    for point in report.quantized:
        points.setdefault(point.node, []).append(point)
    layers: list[Layer] = []
    owners: dict[nn.Parameter, str] = {}
    for node in model.graph.nodes:
        if node.op == "call_module" and node.name in points:
            path = str(node.target)
            module = submodule(model, path)
            kind, group = type(module).__name__, _group_of(path, module)
            group = next((owners[each] for each in module.parameters() if each in owners), group)
            owners.update(dict.fromkeys(module.parameters(), group))
            layers.append(Layer(node, path, kind, group, tuple(points[node.name])))
    return layers


def _group_of(path: str, module: nn.Module) -> str:
    shapes = ["×".join(map(str, parameter.shape)) for parameter in module.parameters()]
    return " ".join((re.sub(r"\d+", "*", path), type(module).__name__, *shapes))


class OwnQuantizers:
    """Computes layers with quantizers of their own alone; all others are taken out while it is in use.

    Args:
        model: A calibrated model.
        others: Quantizers to use at some points instead of the model's own.
    """

    def __init__(self, model: fx.GraphModule, others: Mapping[PointReport, nn.Module] | None = None) -> None:
        self.model = model
        self.others = others or {}
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
        self, layer: Layer, args: tuple[Any, ...], kwargs: dict[str, Any], points: Collection[PointReport]
    ) -> Any:
        """What a layer gives with some of its points quantized.

        Args:
            layer: The layer.
            args: Its exact inputs.
            kwargs: Its exact keyword inputs.
            points: Which of its points.
        """
        given = [*args]
        with ExitStack() as stack:
            for point in points:
                quantizer = self._quantizer(point)
                if point.stub.startswith(f"{layer.path}."):
                    stack.enter_context(self._filled(submodule(self.model, point.stub), quantizer))
                elif point.kind is PointKind.INPUT and point.index < len(given):
                    given[point.index] = quantizer(given[point.index])
                elif point.kind is PointKind.INPUT:
                    source = argument_at(layer.node, point.index)
                    name = next(name for name, value in layer.node.kwargs.items() if value is source)
                    kwargs = {**kwargs, name: quantizer(kwargs[name])}
            value = submodule(self.model, layer.path)(*given, **kwargs)
        for point in points:
            if point.kind is PointKind.OUTPUT:
                value = self._quantizer(point)(value)
        return value

    def _quantizer(self, point: PointReport) -> Any:
        stub: Any = submodule(self.model, point.stub)
        return self.others[point] if point in self.others else self.quantizers[stub]

    @contextmanager
    def _filled(self, stub: Any, quantizer: Any) -> Iterator[None]:
        stub.quantizer = quantizer
        try:
            yield
        finally:
            stub.quantizer = None
