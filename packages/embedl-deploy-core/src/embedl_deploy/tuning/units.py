"""What is decided together: points of one role in all layers of equal structure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.sensitivity.layers import Layer

#: The points of a candidate that are quantized.
Points = frozenset[PointReport]


@dataclass(frozen=True)
class Unit:
    """Points that are quantized together or not at all.

    Attributes:
        name: The group of layers, and which of their points.
        points: The points.
    """

    name: str
    points: Points


def units_of(layers: Sequence[Layer]) -> list[Unit]:
    """The units of a model, in graph order.

    A layer's weights, the input that they are multiplied with, and what is computed on the way are one unit, since a
    product in low precision needs all of them. Other inputs, such as a residual, and outputs, are units of their own.
    """
    found: dict[str, set[PointReport]] = {}
    for layer in layers:
        for point in layer.points:
            found.setdefault(f"{layer.group}: {_role(point, layer)}", set()).add(point)
    return [Unit(name, frozenset(points)) for name, points in found.items()]


def _role(point: PointReport, layer: Layer) -> str:
    if point.kind is PointKind.OUTPUT:
        return "output"
    beside = point.kind is PointKind.INPUT and point.index > 0 and bool(layer.weights)
    return point.label if beside else "product" if layer.weights else "inputs"


def flipped(points: Points, unit: Unit) -> Points:
    """Points with a unit switched off, or on if it is off in part or in whole."""
    return points - unit.points if unit.points <= points else points | unit.points


def by_layer(layers: Sequence[Layer], points: Collection[PointReport]) -> dict[Layer, list[PointReport]]:
    """The points of each layer among some."""
    wanted = set(points)
    found = {layer: [point for point in layer.points if point in wanted] for layer in layers}
    return {layer: of_layer for layer, of_layer in found.items() if of_layer}
