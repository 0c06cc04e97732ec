"""Compares two engines."""

from dataclasses import asdict, dataclass
from typing import Any

from embedl_deploy.engine.differences import ModuleDifference, differences_by_module
from embedl_deploy.engine.report import EngineReport
from embedl_deploy.files import size_in_words
from embedl_deploy.page import render_page
from embedl_deploy.page.words import duration
from embedl_deploy.validation.checked import checked


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
        """Whether the second is faster, where both were timed in the same way.

        Otherwise whether it moves fewer bytes of activations, as far as their sizes are known.
        """
        if self.milliseconds_decide:
            return self._times[1] < self._times[0]
        return self._unknown is None and self.second.activation_bytes < self.first.activation_bytes

    @property
    def same_judge(self) -> bool:
        """Whether one compiler made both, for one target."""
        return (self.first.compiler, self.first.target) == (self.second.compiler, self.second.target)

    @property
    def milliseconds_decide(self) -> bool:
        """Whether both were timed in the same way: by one compiler, for one target, with as many threads."""
        a, b = self.first.timing, self.second.timing
        return self.same_judge and a is not None and b is not None and a.threads == b.threads

    @property
    def _times(self) -> tuple[float, float]:
        """In seconds, where both were timed."""
        return self.first.seconds or 0.0, self.second.seconds or 0.0

    @property
    def _unknown(self) -> EngineReport | None:
        """One of them of which not all sizes are known."""
        return next((report for report in (self.first, self.second) if report.unknown_tensors), None)

    @property
    def by_module(self) -> list[ModuleDifference]:
        """What each module costs in both, the largest increase first: of time where both were timed, else of bytes.

        A layer that several modules went into counts for the last of them, the one whose output it writes. A part
        that only one of the engines knows, the convolution in a fused module, counts for the module that the other
        knows.
        """
        return differences_by_module(self.first, self.second, timed=self.milliseconds_decide)

    @property
    def verdict(self) -> str:
        """One sentence on which to take: by the clock where both were timed, else by the traffic."""
        a, b = self.first, self.second
        if not self.same_judge:
            return f"Not comparable: {a.compiler} for {a.target} against {b.compiler} for {b.target}."
        if self.milliseconds_decide:
            return self._verdict_in_milliseconds
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

    @property
    def _verdict_in_milliseconds(self) -> str:
        a, b = self.first, self.second
        before, after = self._times
        took = f"{b.model} takes {duration(after)}, {a.model} {duration(before)} with {b.compiler} on {b.target}"
        quartiles = [report.timing.quartiles for report in (a, b) if report.timing is not None]
        if quartiles[0][0] <= after <= quartiles[0][1] and quartiles[1][0] <= before <= quartiles[1][1]:
            return f"{took}: no difference that shows, because runs of one engine vary as much."
        if self.is_worth_it:
            return f"{took}: {before / after:.2f} × as fast."
        return f"{took}: {after / before:.2f} × the time; take {a.model}."

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
        before, after = map(duration, self._times)
        rows: list[tuple[str, str, str]] = [
            ("", a.model, b.model),
            ("compiler", a.compiler, b.compiler),
            ("target", a.target, b.target),
            *([("a run", before, after)] if self.milliseconds_decide else []),
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
        worse = [line for line in map(_increase, self.by_module) if line is not None][:8]
        if worse:
            lines += [f"Modules that cost more in {b.model}:", *worse]
        return "\n".join([*lines, self.verdict])


def _increase(row: ModuleDifference) -> str | None:
    """A module that costs more in the second, as a line; ``None`` if it does not."""
    (before, after), (kernels, later) = row.activation_bytes, row.kernels
    if row.seconds is not None:
        if row.seconds[1] <= row.seconds[0]:
            return None
        change = " → ".join(duration(time) if time else "0" for time in row.seconds)
    elif after <= before:
        return None
    else:
        change = f"{before / 1e3:.0f} → {after / 1e3:.0f} kB"
    return f"  {row.module}: {change}, {kernels} → {later} kernels"


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
