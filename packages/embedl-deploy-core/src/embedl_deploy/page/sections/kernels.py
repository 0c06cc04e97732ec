"""The engine's kernels in the order in which they run, with the modules that they came from."""

from embedl_deploy.page.file_reports import EngineLayer
from embedl_deploy.page.html import breakable, code, join, tag
from embedl_deploy.page.section import Section, Source, folded, module_link, module_named
from embedl_deploy.page.table import Cell, Column, Line, table
from embedl_deploy.page.words import chip, colour_of, counted, duration, size

_COLUMNS = (
    Column("kernel"),
    Column("does"),
    Column("type", meaning="the type that it computes in"),
    Column("from", meaning="the modules that it came from"),
    Column("reads and writes"),
    Column("activations", True, "bytes that it reads and writes"),
    Column("weights", True, "bytes of its constants"),
)
_TIME = Column("time", True, "measured, the median of several runs")
#: So many are shown at once; more of them are shown on demand, also by a link to one.
_MOST = 60


def kernels(source: Source) -> Section | None:
    """The section, if there is an engine."""
    engine = source.run.engine
    if engine is None:
        return None
    most = max((layer.bytes_read + layer.bytes_written for layer in engine.layers), default=0) or 1
    longest = max((layer.seconds or 0.0 for layer in engine.layers), default=0.0)
    columns = (*_COLUMNS, _TIME) if longest else _COLUMNS
    lines = [
        Line([*_cells(source, number, layer, most), *_time(layer, longest)], f"k{number}")
        for number, layer in enumerate(engine.layers)
        if layer.kind != "synchronization"
    ]
    counts = ", ".join(f"{each.count} × {each.kind} in {each.precision}" for each in engine.weighted_by_precision)
    head = (
        f"{engine.compiler} for {engine.target}: {counted(engine.kernels, 'kernel')}, "
        f"{size(engine.activation_bytes)} of activations read and written, {size(engine.weight_bytes)} of weights; "
        f"engine {size(engine.engine_bytes)}{f'; {counts}' if counts else ''}"
        f"{'' if engine.seconds is None else f'; a run takes {duration(engine.seconds)}'}."
    )
    in_float = [
        tag("li", module_named(source, entry.module) or code(entry.layer), f" in {entry.precision}: {entry.reason}")
        for entry in engine.float_layers
    ]
    said = [tag("li", message) for message in engine.messages]
    body = join(
        tag("p", head),
        folded("In float, and why", in_float),
        folded("What the compiler said", said),
        tag(
            "details",
            tag("summary", f"All kernels ({len(lines)})"),
            table(columns, lines, anchor="t-kernels"),
            open=len(lines) <= _MOST,
        ),
    )
    return Section("kernels", "Kernels", "Kernels of the engine", body)


def _time(layer: EngineLayer, longest: float) -> list[Cell]:
    """How long it takes, where an engine's layers were timed."""
    if not longest:
        return []
    if layer.seconds is None:
        return [Cell("")]
    bar = layer.seconds / longest
    return [Cell(duration(layer.seconds), layer.seconds, bar, f"p-{colour_of(layer.precision) or 'other'}")]


def _cells(source: Source, number: int, layer: EngineLayer, most: int) -> list[Cell]:
    moved = layer.bytes_read + layer.bytes_written
    links = [tag("li", module_link(line)) for line in source.modules.of_kernel[number]]
    came_from = tag("ul", links, class_="links") if links else code(", ".join(layer.onnx_nodes[:3]))
    sides = [", ".join(dict.fromkeys(tensor.dtype for tensor in side)) for side in (layer.inputs, layer.outputs)]
    return [
        Cell(join(tag("b", number), " ", tag("small", breakable(layer.name), class_="kernel"))),
        Cell(join(layer.kind, tag("small", layer.reason) if layer.reason else None)),
        Cell(chip(layer.precision)),
        Cell(came_from),
        Cell(" → ".join(side for side in sides if side)),
        Cell(size(moved), moved, moved / most, f"p-{colour_of(layer.precision) or 'other'}"),
        Cell(size(layer.weight_bytes) if layer.weight_bytes else "", layer.weight_bytes),
    ]
