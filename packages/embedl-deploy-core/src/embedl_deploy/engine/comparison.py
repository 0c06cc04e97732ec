"""Compares two engines."""

from dataclasses import asdict, dataclass
from typing import Any

from embedl_deploy.engine.report import EngineReport
from embedl_deploy.files import size_in_words
from embedl_deploy.page import render_page
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class ModuleDifference:
    """What a PyTorch module costs in two engines.

    Attributes:
        module: Its path.
        kernels: Layers that it went into, in each.
        activation_bytes: What those read and write, in each.
    """

    module: str
    kernels: tuple[int, int]
    activation_bytes: tuple[int, int]


@checked
@dataclass(frozen=True)
class EngineComparison:
    """Two engines of one network, such as FP16 and INT8.

    Attributes:
        first: The reference.
        second: What is compared with it.
    """

    first: EngineReport
    second: EngineReport

    @property
    def is_worth_it(self) -> bool:
        """Whether the second moves fewer bytes of activations, as far as their sizes are known."""
        return self._unknown is None and self.second.activation_bytes < self.first.activation_bytes

    @property
    def same_judge(self) -> bool:
        """Whether one compiler made both, for one target."""
        return (self.first.compiler, self.first.target) == (self.second.compiler, self.second.target)

    @property
    def _unknown(self) -> EngineReport | None:
        """One of them of which not all sizes are known."""
        return next((report for report in (self.first, self.second) if report.unknown_tensors), None)

    @property
    def by_module(self) -> list[ModuleDifference]:
        """What each module costs in both, the largest increase first.

        A layer that several modules went into counts for the last of them, the one whose output it writes. A part
        that only one of the engines knows, the convolution in a fused module, counts for the module that the other
        knows.
        """
        costs = _costs(self.first), _costs(self.second)
        sides = [_folded(costs[0], costs[1]), _folded(costs[1], costs[0])]
        nothing = (0, 0)
        paths = dict.fromkeys([*sides[0], *sides[1]])
        rows = []
        for path in paths:
            a, b = (side.get(path, nothing) for side in sides)
            rows.append(ModuleDifference(path, (a[0], b[0]), (a[1], b[1])))
        return sorted(rows, key=lambda row: row.activation_bytes[0] - row.activation_bytes[1])

    @property
    def verdict(self) -> str:
        """One sentence on which to take, by the traffic under this compiler."""
        a, b = self.first, self.second
        if not self.same_judge:
            return f"Not comparable: {a.compiler} for {a.target} against {b.compiler} for {b.target}."
        if self._unknown is not None:
            return (
                f"Not comparable: the size of {len(self._unknown.unknown_tensors)} open tensors that layers of "
                f"{self._unknown.model} read or write is not known. Compile it with fixed sizes to compare it."
            )
        ratio = b.activation_bytes / a.activation_bytes if a.activation_bytes else 1.0
        if self.is_worth_it:
            return f"{b.model} moves {1 - ratio:.0%} fewer bytes of activations than {a.model} under {b.compiler}."
        return (
            f"{b.model} moves {ratio - 1:.0%} more bytes of activations than {a.model} under {b.compiler}: "
            f"take {a.model} where this compiler runs it and memory bandwidth decides."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "first": self.first.totals,
            "second": self.second.totals,
            "same_judge": self.same_judge,
            "is_worth_it": self.is_worth_it,
            "verdict": self.verdict,
            "by_module": [asdict(row) for row in self.by_module],
        }

    def to_html(self) -> str:
        """The report as a page that needs nothing else; :func:`embedl_deploy.page.write_page` joins several."""
        return render_page(comparison=self)

    def __str__(self) -> str:
        a, b = self.first, self.second
        is_open = a.usual_inputs or b.usual_inputs
        rows: list[tuple[str, str, str]] = [
            ("", a.model, b.model),
            ("compiler", a.compiler, b.compiler),
            ("target", a.target, b.target),
            ("kernels", str(a.kernels), str(b.kernels)),
            *([("at the shapes", a.usual_shapes or "fixed", b.usual_shapes or "fixed")] if is_open else []),
            ("activations", size_in_words(a.activation_bytes), size_in_words(b.activation_bytes)),
            ("weights", size_in_words(a.weight_bytes), size_in_words(b.weight_bytes)),
            ("engine", size_in_words(a.engine_bytes), size_in_words(b.engine_bytes)),
            ("reformats", str(len(a.reformats)), str(len(b.reformats))),
        ]
        keys = dict.fromkeys([*a.weighted_by_precision, *b.weighted_by_precision])
        for key in sorted(keys, key=lambda key: (key[0].value, key[1])):
            counts = [report.weighted_by_precision.get(key, 0) for report in (a, b)]
            rows.append((f"{key[0].value} in {key[1]}", str(counts[0]), str(counts[1])))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        worse = [row for row in self.by_module if row.activation_bytes[1] > row.activation_bytes[0]][:8]
        if worse:
            lines.append(f"Modules that cost more in {b.model}:")
            lines += [
                f"  {row.module}: {row.activation_bytes[0] / 1e3:.0f} → {row.activation_bytes[1] / 1e3:.0f} kB, "
                f"{row.kernels[0]} → {row.kernels[1]} kernels"
                for row in worse
            ]
        return "\n".join([*lines, self.verdict])


def _costs(report: EngineReport) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for layer in report.layers:
        if layer.modules:
            kernels, moved = found.get(layer.modules[-1], (0, 0))
            found[layer.modules[-1]] = (kernels + 1, moved + layer.bytes_read + layer.bytes_written)
    return found


def _folded(own: dict[str, tuple[int, int]], other: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """``own``, with parts that ``other`` lacks added up under the nearest module around them that only it has."""
    folded: dict[str, tuple[int, int]] = {}
    for path, (kernels, moved) in own.items():
        around = path
        while around and path not in other and (around in own or around not in other):
            around = around.rpartition(".")[0]
        home = around or path
        before = folded.get(home, (0, 0))
        folded[home] = (before[0] + kernels, before[1] + moved)
    return folded


@checked
def compare(first: EngineReport, second: EngineReport) -> EngineComparison:
    """Compare two engines of one network.

    Args:
        first: The reference, such as the FP16 engine's report.
        second: What is compared with it, such as the INT8 engine's.

    Raises:
        InputError: An argument is not a report.
    """
    return EngineComparison(first, second)
