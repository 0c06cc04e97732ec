"""Graphs of boxes from top to bottom, as SVG: the same text for the same graph, and no program to install.

Boxes stand in rows, each right above the highest of those that lines lead to from it. A line that passes a row has a
place of its own in it, so that it crosses no box; the order within a row is that of what stands above and below (the
barycentre method of Sugiyama and others). Colours are those of the page, in light and in dark.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

_CHARACTER, _PADDING, _HEIGHT = 7.4, 10, 30  # pixels, at a font size of 12
_GAP_X, _GAP_Y, _MARGIN = 14, 26, 4


@dataclass(frozen=True)
class Box:
    """A node of a drawing.

    Attributes:
        label: What is written in it.
        kind: ``"plain"``, ``"marked"``, ``"value"`` (what goes in or out) or ``"outside"``.
        note: What is shown when the pointer rests on it.
    """

    label: str
    kind: str = "plain"
    note: str = ""


@dataclass
class _Place:
    """A box, or a point at which a line passes a row."""

    name: str
    row: int
    width: float
    above: list[str] = field(default_factory=list)
    x: float = 0.0


def draw(boxes: Mapping[str, Box], lines: Iterable[tuple[str, str]], title: str) -> str:
    """Draw a graph.

    Args:
        boxes: By name.
        lines: From the name of a box to the name of one below it; there must be no cycle.
        title: What the picture shows, for those who do not see it.

    Returns:
        An SVG element without blank lines, to stand within HTML.
    """
    pairs = list(dict.fromkeys(lines))
    rows, paths = _rows(boxes, pairs)
    _put_in_order(rows)
    width = _put_in_columns(rows)
    height = len(rows) * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    places = {place.name: place for row in rows for place in row}
    parts = [
        f'<svg class="graph" role="img" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" xmlns="http://www.w3.org/2000/svg">',
        f"<title>{escape(title)}</title>",
        *(_line([places[name] for name in path]) for path in paths),
        *(_box(places[name], box) for name, box in boxes.items()),
        "</svg>",
    ]
    return "\n".join(parts)


def _rows(boxes: Mapping[str, Box], pairs: Sequence[tuple[str, str]]) -> tuple[list[list[_Place]], list[list[str]]]:
    """The places of every row, and for each line the places that it goes through."""
    below: dict[str, list[str]] = {name: [second for first, second in pairs if first == name] for name in boxes}
    heights: dict[str, int] = {}

    def height_of(name: str) -> int:
        if name not in heights:
            heights[name] = 1 + max((height_of(other) for other in below[name]), default=-1)
        return heights[name]

    highest = max(map(height_of, boxes), default=0)
    depth = {name: highest - heights[name] for name in boxes}
    rows: list[list[_Place]] = [[] for _ in range(1 + highest)]
    for name, box in boxes.items():
        width = len(box.label) * _CHARACTER + 2 * _PADDING
        rows[depth[name]].append(_Place(name, depth[name], width))
    places = {place.name: place for row in rows for place in row}
    paths = []
    for first, second in pairs:
        path = [first]
        for row in range(depth[first] + 1, depth[second]):
            name = f"{first}\n{second}\n{row}"
            places[name] = _Place(name, row, 0, [path[-1]])
            rows[row].append(places[name])
            path.append(name)
        places[second].above.append(path[-1])
        paths.append([*path, second])
    return rows, paths


def _put_in_order(rows: list[list[_Place]]) -> None:
    """Sort each row by the middle of what is above, then from below upwards, so that few lines cross."""
    below: dict[str, list[str]] = {}
    for row in rows:
        for place in row:
            for name in place.above:
                below.setdefault(name, []).append(place.name)

    def sort(row: list[_Place], others: list[_Place], neighbours: Mapping[str, Sequence[str]]) -> None:
        index = {place.name: position for position, place in enumerate(others)}
        scale = len(others) / len(row)
        own = {place.name: position * scale for position, place in enumerate(row)}

        def middle(place: _Place) -> float:
            found = [index[name] for name in neighbours.get(place.name, ()) if name in index]
            return sum(found) / len(found) if found else own[place.name]

        row.sort(key=middle)

    above = {place.name: place.above for row in rows for place in row}
    for _ in range(4):
        for upper, lower in itertools.pairwise(rows):
            sort(lower, upper, above)
        for upper, lower in reversed(list(itertools.pairwise(rows))):
            sort(upper, lower, below)


def _put_in_columns(rows: list[list[_Place]]) -> float:
    """Give each place its middle's x, rows centred; returns the width of the drawing in pixels."""
    widths = [sum(place.width for place in row) + _GAP_X * (len(row) - 1) for row in rows]
    total = max(widths, default=0) + 2 * _MARGIN
    for row, width in zip(rows, widths, strict=True):
        left = (total - width) / 2
        for place in row:
            place.x = left + place.width / 2
            left += place.width + _GAP_X
    return total


def _top(place: _Place) -> float:
    return _MARGIN + place.row * (_HEIGHT + _GAP_Y)


def _line(places: Sequence[_Place]) -> str:
    start = places[0]
    path = f"M{start.x:.1f} {_top(start) + _HEIGHT:.1f}"
    for before, place in itertools.pairwise(places):
        bottom, top = _top(before) + _HEIGHT, _top(place)
        bend = (bottom + top) / 2
        path += f" C{before.x:.1f} {bend:.1f} {place.x:.1f} {bend:.1f} {place.x:.1f} {top:.1f}"
        if place is not places[-1]:
            path += f" V{top + _HEIGHT:.1f}"
    end, top = places[-1].x, _top(places[-1])
    head = f"M{end - 4:.1f} {top - 7:.1f} L{end:.1f} {top:.1f} L{end + 4:.1f} {top - 7:.1f}"
    return f'<path class="line" d="{path} {head}"/>'


def _box(place: _Place, box: Box) -> str:
    left, top = place.x - place.width / 2, _top(place)
    note = f"<title>{escape(box.note)}</title>" if box.note else ""
    round_ = _HEIGHT / 2 if box.kind == "value" else 4
    return (
        f'<g class="{box.kind}">{note}<rect x="{left:.1f}" y="{top:.1f}" width="{place.width:.1f}" height="{_HEIGHT}" '
        f'rx="{round_}"/><text x="{place.x:.1f}" y="{top + 19.5:.1f}">{escape(box.label)}</text></g>'
    )
