"""What a search has seen: what each decision costs against what it keeps."""

import math
from collections.abc import Iterator, Sequence

from embedl_deploy.page.html import Html, join, tag
from embedl_deploy.page.search_points import Frontier, FrontierPoint
from embedl_deploy.page.section import Section, Source, folded
from embedl_deploy.page.table import Cell, Column, Line, table
from embedl_deploy.page.words import counted, number

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 12, 44


def frontier(source: Source) -> Section | None:
    """The section, if a search has tried something."""
    found = source.run.frontier
    if found is None or not (found.points or found.not_drawn):
        return None
    others = folded("Not drawn: no finite figure", [tag("li", decision) for decision in found.not_drawn])
    if not found.points:
        return Section("frontier", "Frontier", "The frontier of the search", join(others))
    best = best_of(found.points)
    said = (
        f"{counted(len(found.points), 'decision')} tried; the line joins those that nothing else beats in both. "
        "Point at one for its decision."
    )
    lines = [
        Line(
            [
                Cell(point.decision),
                Cell(number(point.objective), point.objective),
                Cell(number(point.accuracy), point.accuracy),
                Cell(_standing(point, best)),
            ],
            f"d{at}",
        )
        for at, point in enumerate(found.points)
    ]
    columns = [Column("decision"), Column(found.objective, True), Column(found.accuracy, True), Column("")]
    body = join(
        tag("p", said),
        tag("figure", draw_frontier(found)),
        tag("details", tag("summary", "As a table"), table(columns, lines, anchor="t-frontier")),
        others,
    )
    return Section("frontier", "Frontier", "The frontier of the search", body)


def best_of(points: Sequence[FrontierPoint]) -> list[FrontierPoint]:
    """Those that no other beats: cheaper and no worse, or better and no dearer. The cheapest first."""
    best: list[FrontierPoint] = []
    for point in sorted(points, key=lambda point: (point.objective, -point.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def draw_frontier(found: Frontier) -> Html:
    """The points as a drawing; each tells its decision when it is pointed at, and links to its line of the table."""
    across = _Axis([point.objective for point in found.points], _LEFT, _WIDTH - _RIGHT)
    up = _Axis([point.accuracy for point in found.points], _HEIGHT - _BOTTOM, _TOP)
    best = best_of(found.points)
    steps = " ".join(f"{across.place(p.objective):.1f},{up.place(p.accuracy):.1f}" for p in best)
    return tag(
        "svg",
        list(_grid(across, up)),
        tag("text", found.objective, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 6, text_anchor="middle"),
        tag("text", found.accuracy, transform=f"translate(12 {_HEIGHT / 2 - 16}) rotate(-90)", text_anchor="middle"),
        tag("polyline", points=steps, class_="front"),
        [_dot(at, point, across, up, point in best) for at, point in enumerate(found.points)],
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        aria_label=f"{found.accuracy} against {found.objective}",
        class_="frontier",
    )


class _Axis:
    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        low, high = min(values), max(values)
        margin = (high - low) * 0.06 or abs(high) * 0.06 or 1.0
        self.low, self.high, self._start, self._end = low - margin, high + margin, start, end

    def place(self, value: float) -> float:
        return self._start + (value - self.low) / (self.high - self.low) * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round numbers, three to seven of them."""
        rough = (self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = math.ceil(self.low / step)
        return [count * step for count in range(first, math.floor(self.high / step) + 1)]


def _grid(across: _Axis, up: _Axis) -> Iterator[Html]:
    for value in across.ticks():
        x = f"{across.place(value):.1f}"
        yield tag("line", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="grid")
        yield tag("text", number(value), x=x, y=_HEIGHT - _BOTTOM + 16, text_anchor="middle", class_="tick")
    for value in up.ticks():
        y = f"{up.place(value):.1f}"
        yield tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid")
        yield tag("text", number(value), x=_LEFT - 6, y=y, dy="0.35em", text_anchor="end", class_="tick")


def _dot(at: int, point: FrontierPoint, across: _Axis, up: _Axis, is_best: bool) -> Html:
    standing = "chosen" if point.chosen else "best" if is_best else "beaten"
    said = f"{point.decision}\n{number(point.objective)}, {number(point.accuracy)}{' (chosen)' if point.chosen else ''}"
    x, y, radius = across.place(point.objective), up.place(point.accuracy), 7 if point.chosen else 5
    circle = tag("circle", tag("title", said), cx=f"{x:.1f}", cy=f"{y:.1f}", r=radius, class_=standing)
    return tag("a", circle, href=f"#d{at}")


def _standing(point: FrontierPoint, best: Sequence[FrontierPoint]) -> str:
    return "chosen" if point.chosen else "not beaten" if point in best else ""
