"""Tables that are sorted by a click on a column, with bars in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedl_deploy.page.html import Html, join, tag


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        shown: What stands in it, as :func:`join` takes it.
        value: What it is sorted by; ``None`` sorts last. Texts are sorted by what is shown.
        bar: Length of a bar behind it, 0 to 1.
        colour: Class of colour of the bar.
    """

    shown: Any
    value: float | None = None
    bar: float | None = None
    colour: str = ""


@dataclass(frozen=True)
class Line:
    """One line, with the anchor that links lead to."""

    cells: Sequence[Cell]
    anchor: str | None = None


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it holds numbers, and what the title means."""

    title: str
    numbers: bool = False
    meaning: str | None = None


def table(columns: Sequence[Column], lines: Sequence[Line], *, anchor: str, is_sortable: bool = True) -> Html:
    """A table.

    Args:
        columns: From left to right; the first names the line.
        lines: From top to bottom, with one cell for each column.
        anchor: The table's own.
        is_sortable: Whether a click on a title sorts.
    """
    heads = [
        tag(
            "th",
            tag("button", column.title, type="button", title=column.meaning) if is_sortable else column.title,
            scope="col",
            class_="n" if column.numbers else None,
        )
        for column in columns
    ]
    body = [tag("tr", _cells(columns, line.cells), id=line.anchor) for line in lines]
    whole = tag(
        "table",
        tag("thead", tag("tr", heads)),
        tag("tbody", body),
        id=anchor,
        class_="sortable" if is_sortable else None,
    )
    return tag("div", whole, class_="wide")


def _cells(columns: Sequence[Column], cells: Sequence[Cell]) -> list[Html]:
    first, *others = zip(columns, cells, strict=True)
    return [tag("th", first[1].shown, scope="row"), *(_cell(column, cell) for column, cell in others)]


def _cell(column: Column, cell: Cell) -> Html:
    drawn = None
    if cell.bar is not None:
        drawn = tag("span", class_=f"bar {cell.colour}".strip(), style=f"--part:{min(max(cell.bar, 0.0), 1.0):.4f}")
    empty = cell.shown in ("", None)
    return tag(
        "td",
        join(cell.shown, drawn),
        data_label=None if empty else column.title,
        data_v=None if cell.value is None else f"{cell.value:.6g}".replace("inf", "Infinity"),
        class_="n" if column.numbers else None,
    )
