"""Two engines of one network side by side, such as FP16 and INT8."""

from collections.abc import Iterator

from embedl_deploy.page.file_reports import Comparison, EngineTotals
from embedl_deploy.page.html import join, tag
from embedl_deploy.page.section import Section, Source, module_named
from embedl_deploy.page.table import Cell, Column, Line, table
from embedl_deploy.page.words import duration, size


def comparison(source: Source) -> Section | None:
    """The section, if two engines were compared."""
    found = source.run.comparison
    if found is None:
        return None
    names = [found.first.model, found.second.model]
    totals = table(
        [Column(""), *(Column(name, True) for name in names)],
        [Line(cells) for cells in _totals(found)],
        anchor="t-totals",
        is_sortable=False,
    )
    body = join(tag("p", found.verdict, class_="verdict"), totals, _modules(source, found))
    return Section("comparison", "Two engines", f"{names[0]} against {names[1]}", body)


def _totals(found: Comparison) -> Iterator[list[Cell]]:
    sides = (found.first, found.second)
    times = [side.seconds for side in sides]
    if any(times):
        longest = max(filter(None, times))
        yield [Cell("a run"), *(_timed(time, longest) for time in times)]
    for title, name, is_size in (
        ("activations read and written", "activation_bytes", True),
        ("kernels", "kernels", False),
        ("weights", "weight_bytes", True),
        ("engine", "engine_bytes", True),
        ("kernels that only change type or layout", "reformats", False),
    ):
        values = [getattr(side, name) for side in sides]
        most = max(values) or 1
        shown = [size(value) if is_size else value for value in values]
        bars = [Cell(text, value, value / most, "plain") for text, value in zip(shown, values, strict=True)]
        yield [Cell(title), *bars]
    counts = [{(each.kind, each.precision): each.count for each in side.weighted_by_precision} for side in sides]
    for kind, precision in sorted({*counts[0], *counts[1]}):
        values = [side.get((kind, precision), 0) for side in counts]
        yield [Cell(f"{kind} in {precision}"), *(Cell(value, value) for value in values)]
    for title, name in (("compiler", "compiler"), ("target", "target")):
        yield [Cell(title), *(Cell(getattr(side, name)) for side in sides)]


def _timed(seconds: float | None, longest: float) -> Cell:
    return Cell("") if seconds is None else Cell(duration(seconds), seconds, seconds / longest, "plain")


def _modules(source: Source, found: Comparison) -> object:
    most = max((max(row.activation_bytes) for row in found.by_module), default=0) or 1
    sides: tuple[EngineTotals, ...] = (found.first, found.second)
    timed = any(row.seconds is not None for row in found.by_module)
    longest = max((max(row.seconds or (0.0,)) for row in found.by_module), default=0.0) or 1.0
    columns = [
        Column("module"),
        *(Column(f"{side.model}, time", True, "measured") for side in sides if timed),
        *(Column(side.model, True, "bytes of activations") for side in sides),
        Column("difference", True, "bytes of activations, more in the second"),
        Column("kernels", meaning="in the first and in the second"),
    ]
    lines = []
    for row in found.by_module:
        first, second = row.activation_bytes[0], row.activation_bytes[-1]
        change = f"{'−' if second < first else '+'}{size(abs(second - first))}" if second != first else "0"
        bars = [Cell(size(value) if value else "0", value, value / most, "plain") for value in (first, second)]
        counts = Cell(f"{row.kernels[0]} → {row.kernels[-1]}")
        times = [_timed(time, longest) for time in row.seconds or (None, None)] if timed else []
        lines.append(
            Line([Cell(module_named(source, row.module)), *times, *bars, Cell(change, second - first), counts])
        )
    if not lines:
        return None
    title = tag("summary", f"Module by module ({len(lines)})")
    return tag("details", title, table(columns, lines, anchor="t-compared"), open=len(lines) <= 40)
