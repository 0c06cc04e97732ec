"""What was found of a family, as a table, and the failures by their causes."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from zoo.backends import BACKENDS, DEFAULT
from zoo.running import Record

_COMMON = ("model", "transform", "agree", "plan", "points", "unfused", "SQNR dB")
_LAST = ("seconds", "first failure")
#: By backend.
COLUMNS = {
    "tensorrt": (*_COMMON, "INT8", "FP16+INT8", "check", "engine", *_LAST),
    "onnxruntime": (*_COMMON, "INT8", "check", "engine", "INT8 kernels / asked", "run", *_LAST),
}
#: What of a reason differs from model to model: quoted text, numbers, paths.
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|[\w/.]*/[\w/.]+|\d+(\.\d+)?(e[+-]?\d+)?")


def rows(records: Sequence[Record], backend: str = DEFAULT) -> list[tuple[str, ...]]:
    """The cells of the table, a row for each model; ``–`` where a stage was not tried."""
    return [_row(record, backend) for record in records]


def as_table(records: Sequence[Record], backend: str = DEFAULT) -> Table:
    """For a terminal."""
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS[backend]:
        table.add_column(column)
    for row in rows(records, backend):
        table.add_row(*row)
    return table


def as_markdown(title: str, records: Sequence[Record], backend: str = DEFAULT) -> str:
    """A page: totals, the table, failures by cause, and what is left unfused by reason."""
    columns = COLUMNS[backend]
    lines = [f"# {title}", "", *totals(records, backend), "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows(records, backend)]
    for heading, groups in headed(records):
        lines += ["", f"## {heading}", ""]
        lines += [f"- {reason}: {', '.join(names)}" for reason, names in groups] or ["None."]
    return "\n".join(lines) + "\n"


def headed(records: Sequence[Record]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """What follows the table: headings, and what is under each, a reason with models."""
    return [
        ("Failures", causes(records)),
        ("Unfused", unfused(records)),
        ("Asked for in INT8, computed in float", in_float(records)),
    ]


def totals(records: Sequence[Record], backend: str = DEFAULT) -> list[str]:
    """How many models pass each stage, and how much is left unfused."""
    built = [record for record in records if record.passed("build")]
    counts = ", ".join(f"{stage} {sum(r.passed(stage) for r in built)}" for stage in BACKENDS[backend].stages[1:])
    found = [r.stages["quantize"] for r in built if r.passed("quantize")]
    left, all_of_them = sum(len(q["unfused"]) for q in found), sum(len(q["unfused"]) + q["weights"] for q in found)
    share = f" ({left / all_of_them:.1%})" if all_of_them else ""
    lines = [
        f"{len(built)} of {len(records)} models could be built. Of these pass: {counts}.",
        f"Weighted operators and attentions without a fusion: {left} of {all_of_them}{share}.",
    ]
    engines = [r.stages["engine"] for r in built if r.passed("engine") and r.stages["engine"].get("asked")]
    if backend == DEFAULT or not engines:
        return lines
    done, asked = sum(engine["int8"] for engine in engines), sum(engine["asked"] for engine in engines)
    whole = sum(engine["int8"] == engine["asked"] for engine in engines)
    return [
        *lines,
        f"Products in INT8 by the engine's own account: {done} of {asked} that the files ask for ({done / asked:.2%}); "
        f"all of them in {whole} of {len(engines)} models.",
    ]


def causes(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Failures of all stages, alike ones together: the stage and the reason of the first, and models; most first."""
    groups: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for record in records:
        for stage, outcome in record.stages.items():
            if not outcome["ok"]:
                kind = stage, _PARTICULARS.sub("…", outcome["reason"])
                groups.setdefault(kind, (f"{stage}: {outcome['reason']}", []))[1].append(record.model)
    return sorted(groups.values(), key=lambda group: -len(group[1]))


def unfused(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Operators without a quantization point, by operator and reason, with models and counts; most frequent first."""
    groups: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for record in records:
        for _, operator, reason in record.stages.get("quantize", {}).get("unfused", []):
            groups[f"{operator}: {_PARTICULARS.sub('…', reason)}"][record.model] += 1
    ordered = sorted(groups.items(), key=lambda group: -sum(group[1].values()))
    return [(reason, [f"{name} {count}" for name, count in models.items()]) for reason, models in ordered]


def in_float(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """Products that are asked for in INT8 and computed in float, by reason, with models and counts."""
    groups: dict[str, list[str]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        for reason, count in record.stages.get("engine", {}).get("in_float", []):
            groups[reason].append(f"{record.model} {count}")
            counts[reason] += count
    return sorted(groups.items(), key=lambda group: -counts[group[0]])


def _row(record: Record, backend: str) -> tuple[str, ...]:
    stages = record.stages

    def mark(stage: str, figure: str | None = None) -> str:
        outcome: dict[str, Any] | None = stages.get(stage)
        if outcome is None:
            return "–"
        if not outcome["ok"]:
            return "✗"
        return "✓" if figure is None else f"{outcome[figure]}"

    quantized, engine = stages.get("quantize", {}), stages.get("engine", {})
    last: tuple[str, ...] = (mark("int8"), mark("fp16"), mark("check"), mark("engine", "kernels"))
    if backend == "onnxruntime":
        share = f"{engine['int8']} / {engine['asked']}" if record.passed("engine") else mark("engine")
        last = (mark("int8"), mark("check"), mark("engine", "kernels"), share, mark("run"))
    failure = record.failure
    return (
        record.model,
        mark("transform", "capture"),
        f"{stages['agree']['max_rel']:.0e}" if record.passed("agree") else mark("agree"),
        mark("plan"),
        mark("quantize", "points"),
        str(len(quantized["unfused"])) if "unfused" in quantized else mark("quantize"),
        "–" if quantized.get("sqnr") is None else f"{quantized['sqnr']:.1f}",
        *last,
        f"{record.seconds:.0f}",
        "" if failure is None else f"{failure[0]}: {failure[1]}",
    )
