"""What each layer costs and loses: a line for each module, from the engine and from the sensitivity report."""

import math
from dataclasses import dataclass
from typing import Protocol

from embedl_deploy.page.html import Html, breakable, join, link, tag
from embedl_deploy.page.model_reports import Sensitivity
from embedl_deploy.page.modules import ModuleLine
from embedl_deploy.page.section import Section, Source
from embedl_deploy.page.table import Cell, Column, Line, table
from embedl_deploy.page.words import chip, colour_of, number, size

_MEANING = {"sqnr": "the SQNR in dB (more is better)", "kl": "the KL divergence in nats (less is better)"}


def layers(source: Source) -> Section | None:
    """The section, if any report says something of modules."""
    run, lines = source.run, [line for line in source.modules.lines if line.is_listed]
    if not lines:
        return None
    parts: list[_Columns] = [
        _Names(source),
        *([_Costs(lines)] if run.engine else []),
        *([_Losses(run.sensitivity)] if run.sensitivity else []),
    ]
    columns = [column for part in parts for column in part.columns()]
    rows = [Line([cell for part in parts for cell in part.cells(line)], f"m{line.number}") for line in lines]
    return Section(
        "layers",
        "Layers",
        "What each layer costs and loses",
        join(_said(source), table(columns, rows, anchor="t-layers")),
    )


def _said(source: Source) -> Html | None:
    run, said = source.run, []
    if run.engine:
        said.append(
            "Bytes and kernels are those of the engine; a kernel that several modules went into counts for the "
            "one whose output it writes."
        )
    if run.sensitivity:
        metric = run.sensitivity.metric
        said.append(
            f"Noise is a layer's share of what quantization costs the outputs. “Alone” is "
            f"{_MEANING.get(metric, 'your own measure')}, with only this layer quantized, “in float” with all "
            f"but this one; with everything quantized it is {number(run.sensitivity.quantized)}."
        )
    return tag("p", " ".join(said)) if said else None


class _Columns(Protocol):
    """Some columns of the table, from one report."""

    def columns(self) -> list[Column]: ...

    def cells(self, line: ModuleLine) -> list[Cell]: ...


@dataclass(frozen=True)
class _Names:
    source: Source

    def columns(self) -> list[Column]:
        quantized = [Column("quantized")] if self.source.run.quantization else []
        return [Column("module"), *quantized]

    def cells(self, line: ModuleLine) -> list[Cell]:
        name = tag("code", breakable(line.path))
        shown = link(f"g{line.nodes[0]}", name, title="show in the graph") if line.nodes else name
        rewritten = ", then ".join(dict.fromkeys(match.pattern for match in line.rewrites))
        kind = tag("small", breakable(line.kind) or "operations of its forward", title=rewritten or None)
        head = Cell(join(shown, kind))
        if not self.source.run.quantization:
            return [head]
        reasons = dict.fromkeys(point.rule for point in line.points if not point.config)
        why = "; ".join(reasons)
        return [head, Cell(join(chip(line.planned_precision), tag("small", why) if why else None))]


class _Costs:
    def __init__(self, lines: list[ModuleLine]) -> None:
        self._most = max((line.activation_bytes for line in lines), default=0) or 1

    def columns(self) -> list[Column]:
        return [
            Column("engine", meaning="the type that the engine computes in"),
            Column("activations", True, "bytes that its kernels read and write"),
            Column("weights", True, "bytes of its constants"),
            Column("kernels", True, "kernels that it went into, and links to them"),
        ]

    def cells(self, line: ModuleLine) -> list[Cell]:
        moved = line.activation_bytes
        links = [link(f"k{at}", at, class_="k") for at in line.kernels]
        if not line.own:
            return [*(Cell("") for _ in range(3)), Cell(links, len(line.kernels))]
        return [
            Cell(chip(line.engine_precision)),
            Cell(size(moved), moved, moved / self._most, f"p-{colour_of(line.engine_precision) or 'other'}"),
            Cell(size(line.weight_bytes) if line.weight_bytes else "", line.weight_bytes),
            Cell(links, len(line.kernels)),
        ]


class _Losses:
    def __init__(self, found: Sensitivity) -> None:
        self._is_ratio = found.metric == "sqnr"
        self._most = max((layer.share or 0.0 for layer in found.layers), default=0.0) or 1.0

    def columns(self) -> list[Column]:
        return [
            Column("noise", True, "share of the noise of all layers"),
            Column("alone", True, "with only this layer quantized"),
            Column("weights alone", True, "with only its weights quantized"),
            Column("activations alone", True, "with only its activations quantized"),
            Column("in float", True, "with everything but this layer quantized"),
        ]

    def cells(self, line: ModuleLine) -> list[Cell]:
        found = line.sensitivity
        if found is None:
            return [Cell("") for _ in range(5)]
        values = (found.alone, found.weight_alone, found.activation_alone, found.left_in_float)
        share = found.share or 0.0
        return [Cell(f"{share:.1%}", share, share / self._most, "loss"), *map(self._measured, values)]

    def _measured(self, value: float | None) -> Cell:
        """What JSON has no number for is an infinite ratio, or with other measures what was not measured."""
        if value is None and self._is_ratio:
            return Cell("∞", math.inf)
        return Cell("" if value is None else f"{value:.1f}" if self._is_ratio else number(value), value)
