"""An engine's report as tables for people."""

import re
from collections import Counter

from embedl_deploy.engine.figures import EngineFigures, FloatLayer
from embedl_deploy.engine.layers import EngineLayer
from embedl_deploy.files import size_in_words
from embedl_deploy.page.words import duration

#: A number that is not part of a word: not that of INT8.
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")


def report_table(report: EngineFigures, *, layers: bool = False) -> str:
    """Totals, precisions, reformats, what stayed in float; every layer if asked."""
    unknown = len(report.unknown_tensors)
    activations = ("at least " if unknown else "") + size_in_words(report.activation_bytes)
    lines = [
        f"{report.model}: {report.compiler}, {report.target}",
        f"  {report.kernels} kernels, {activations} of activations read and written, "
        f"{size_in_words(report.weight_bytes)} of weights; engine {size_in_words(report.engine_bytes)}, "
        f"built in {report.build_seconds:.1f} s",
        "  activations by type: "
        + ", ".join(f"{t} {size_in_words(b)}" for t, b in report.activation_bytes_by_type.items()),
    ]
    if report.timing is not None:
        lines.insert(1, f"  a run takes {report.timing}")
        lines += _slowest_kinds(report)
    if report.usual_shapes:
        lines.append(f"  bytes are those at the usual shapes, {report.usual_shapes}; other shapes move others")
    if unknown:
        lines.append(
            f"  the size of {unknown} open tensors that layers read or write is not known, and counted as the least "
            "that it can be"
        )
    weighted = sorted(report.weighted_by_precision.items(), key=lambda item: (item[0][0].value, item[0][1]))
    lines += [f"  {count:4} × {kind.value} in {precision}" for (kind, precision), count in weighted]
    if report.reformats:
        moved = sum(layer.bytes_read + layer.bytes_written for layer in report.reformats)
        lines.append(f"  {len(report.reformats)} kernels only change type or layout ({size_in_words(moved)}):")
        lines += [f"    {_where(layer)}: {_change(layer)}" for layer in report.reformats[:8]]
        if len(report.reformats) > 8:
            lines.append(f"    … {len(report.reformats) - 8} more")
    alike: dict[str, list[FloatLayer]] = {}
    for entry in report.float_layers:  # reasons that differ in their numbers only are one
        alike.setdefault(_NUMBER.sub("…", entry.reason), []).append(entry)
    if alike:
        lines.append("  Not in low precision:")
    for masked, entries in sorted(alike.items(), key=lambda item: -len(item[1])):
        reason = entries[0].reason if len({entry.reason for entry in entries}) == 1 else masked
        places = [entry.module or entry.layer for entry in entries]
        more = f", … {len(places) - 4} more" if len(places) > 4 else ""
        lines.append(f"    {len(places)} × {reason}: {', '.join(places[:4])}{more}")
    lines += [f"  compiler: {message}" for message in report.messages[:5]]
    if layers:
        lines += ["", *_layer_lines(report)]
    return "\n".join(lines)


def _slowest_kinds(report: EngineFigures) -> list[str]:
    """What share of the measured time each type of layer takes, most first."""
    times: Counter[str] = Counter()
    for layer in report.layers:
        times[layer.type] += layer.seconds or 0.0  # type: ignore[assignment]  # a counter of seconds
    whole = sum(times.values())
    shares = [f"{kind} {time / whole:.0%}" for kind, time in times.most_common(6) if whole and time / whole >= 0.01]
    return [f"  of the time in kernels, {duration(whole)}: {', '.join(shares)}"] if shares else []


def _layer_lines(report: EngineFigures) -> list[str]:
    measured = any(layer.seconds is not None for layer in report.layers)
    rows = [["kind", "type", "reads", "writes", "kB", *(["time"] if measured else []), "from"]]
    for layer in filter(lambda layer: layer.is_kernel, report.layers):
        moved = f"{(layer.bytes_read + layer.bytes_written) / 1e3:.0f}"
        reads, writes = (", ".join(dict.fromkeys(t.dtype for t in side)) for side in (layer.inputs, layer.outputs))
        took = [] if not measured else ["" if layer.seconds is None else duration(layer.seconds)]
        rows.append([layer.kind.value, layer.type, reads, writes, moved, *took, _where(layer)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in rows]


def _where(layer: EngineLayer) -> str:
    return ", ".join(layer.modules[:3]) or ", ".join(layer.onnx_nodes[:3]) or layer.name


def _change(layer: EngineLayer) -> str:
    if not layer.inputs or not layer.outputs:
        return layer.type
    before, after = layer.inputs[0], layer.outputs[0]
    if before.dtype != after.dtype:
        return f"{before.dtype} to {after.dtype}"
    if not before.layout and not after.layout:
        return layer.type
    return f"{before.layout or '?'} to {after.layout or '?'}"
