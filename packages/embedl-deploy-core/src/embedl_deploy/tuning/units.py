"""What is decided together: points of one role in all layers of equal structure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.sensitivity.layers import Layer

#: The points of a candidate that are quantized, each in a format.
Points = frozenset[PointReport]

#: What a point is, whatever its format: its module, its label, and the node that calls the module.
Place = tuple[str, str, str]


def place_of(point: PointReport) -> Place:
    """Which point it is."""
    return point.path, point.label, point.node


@dataclass(frozen=True)
class Unit:
    """Points that are quantized together or not at all.

    Attributes:
        name: The group of layers, and which of their points.
        points: The points, in the format of the configuration.
        others: The same in other formats, by the name of the format.
    """

    name: str
    points: Points
    others: Mapping[str, Points] = field(default_factory=dict)

    @cached_property
    def every(self) -> Points:
        """The points in all formats."""
        return self.points.union(*self.others.values())

    @cached_property
    def choices(self) -> dict[str, Points]:
        """What can be decided, in words: each format, and float."""
        own = next(name_of(point) for point in self.points)
        return {
            f"in {own}": self.points,
            **{f"in {name}": of for name, of in self.others.items()},
            "in float": Points(),
        }

    def switched(self, points: Points, choice: Points) -> Points:
        """A candidate's points with those of this unit as a choice has them."""
        return (points - self.every) | choice


def name_of(point: PointReport) -> str:
    """The name of a quantized point's number format."""
    assert point.format is not None  # it is quantized
    return point.format.precision.name


def units_of(layers: Sequence[Layer], others: Mapping[str, Collection[PointReport]] | None = None) -> list[Unit]:
    """The units of a model, in graph order.

    A layer's weights, the input that they are multiplied with, and what is computed on the way are one unit, since a
    product in low precision needs all of them. Other inputs, such as a residual, and outputs, are units of their own.

    Args:
        layers: The layers of the model, quantized everywhere.
        others: Points in other formats, by the name of the format.
    """
    found: dict[str, set[PointReport]] = {}
    for layer in layers:
        for point in layer.points:
            found.setdefault(f"{layer.group}: {_role(point, layer)}", set()).add(point)
    by_place = {name: {place_of(point): point for point in points} for name, points in (others or {}).items()}
    units = []
    for name, points in found.items():
        places = {place_of(point) for point in points}
        elsewhere = {
            other: frozenset(point for place, point in of.items() if place in places) - points
            for other, of in by_place.items()
        }
        units.append(Unit(name, frozenset(points), {other: of for other, of in elsewhere.items() if of}))
    return units


def _role(point: PointReport, layer: Layer) -> str:
    if point.kind is PointKind.OUTPUT:
        return "output"
    beside = point.kind is PointKind.INPUT and point.index > 0 and bool(layer.weights)
    return point.label if beside else "product" if layer.weights else "inputs"


def by_layer(layers: Sequence[Layer], points: Collection[PointReport]) -> dict[Layer, list[PointReport]]:
    """The points of each layer among some, in the order of the layer's own."""
    wanted = {place_of(point): point for point in points}
    found = {layer: [wanted[place] for own in layer.points if (place := place_of(own)) in wanted] for layer in layers}
    return {layer: of_layer for layer, of_layer in found.items() if of_layer}
