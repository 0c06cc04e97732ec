"""What was found of a family, as a table, and the failures by their causes."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from zoo.running import Record
from zoo.stages import STAGES

COLUMNS = (
    *("model", "transform", "agree", "plan", "points", "unfused", "SQNR dB", "INT8", "FP16+INT8", "check", "engine"),
    *("seconds", "first failure"),
)
#: What of a reason differs from model to model: quoted text, numbers, paths.
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|[\w/.]*/[\w/.]+|\d+(\.\d+)?(e[+-]?\d+)?")


def rows(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """The cells of the table, a row for each model; ``–`` where a stage was not tried."""
    return [_row(record) for record in records]


def as_table(records: Sequence[Record]) -> Table:
    """For a terminal."""
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column)
    for row in rows(records):
        table.add_row(*row)
    return table


def as_markdown(title: str, records: Sequence[Record]) -> str:
    """A page: totals, the table, failures by cause, and what is left unfused by reason."""
    lines = [f"# {title}", "", *totals(records), "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows(records)]
    for heading, groups in (("Failures", causes(records)), ("Unfused", unfused(records))):
        lines += ["", f"## {heading}", ""]
        lines += [f"- {reason}: {', '.join(names)}" for reason, names in groups] or ["None."]
    return "\n".join(lines) + "\n"


def totals(records: Sequence[Record]) -> list[str]:
    """How many models pass each stage, and how much is left unfused."""
    built = [record for record in records if record.passed("build")]
    counts = ", ".join(f"{stage} {sum(r.passed(stage) for r in built)}" for stage in STAGES[1:])
    found = [r.stages["quantize"] for r in built if r.passed("quantize")]
    left, all_of_them = sum(len(q["unfused"]) for q in found), sum(len(q["unfused"]) + q["weights"] for q in found)
    share = f" ({left / all_of_them:.1%})" if all_of_them else ""
    return [
        f"{len(built)} of {len(records)} models could be built. Of these pass: {counts}.",
        f"Weighted operators and attentions without a fusion: {left} of {all_of_them}{share}.",
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


def _row(record: Record) -> tuple[str, ...]:
    stages = record.stages

    def mark(stage: str, figure: str | None = None) -> str:
        outcome: dict[str, Any] | None = stages.get(stage)
        if outcome is None:
            return "–"
        if not outcome["ok"]:
            return "✗"
        return "✓" if figure is None else f"{outcome[figure]}"

    quantized = stages.get("quantize", {})
    failure = record.failure
    return (
        record.model,
        mark("transform", "capture"),
        f"{stages['agree']['max_rel']:.0e}" if record.passed("agree") else mark("agree"),
        mark("plan"),
        mark("quantize", "points"),
        str(len(quantized["unfused"])) if "unfused" in quantized else mark("quantize"),
        "–" if quantized.get("sqnr") is None else f"{quantized['sqnr']:.1f}",
        *(mark("int8"), mark("fp16"), mark("check")),
        mark("engine", "kernels"),
        f"{record.seconds:.0f}",
        "" if failure is None else f"{failure[0]}: {failure[1]}",
    )
