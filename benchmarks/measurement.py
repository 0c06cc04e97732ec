"""What the benchmarks share: two sides measured side by side, and a table of ratios with their limits.

Timings on shared machines are noisy: each ratio is the median of several rounds, and within a round both sides are
measured one right after the other.
"""

import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measurement:
    """One row of a table of ratios.

    Attributes:
        what: What was measured.
        against: What it was measured against.
        measured: The one, with its unit.
        reference: The other, with its unit.
        ratio: Of the first to the second; not exactly that of the two medians shown.
        limit: The largest ratio accepted.
    """

    what: str
    against: str
    measured: str
    reference: str
    ratio: float
    limit: float

    @property
    def within(self) -> bool:
        """Whether the ratio is accepted."""
        return self.ratio <= self.limit


def seconds(function: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def processor_seconds(function: Callable[[], object]) -> float:
    """Processor time of a call, which what else runs on the machine disturbs less than the clock."""
    start = time.process_time()
    function()
    return time.process_time() - start


def median_of_pairs(
    what: str, against: str, limit: float, pairs: Sequence[tuple[float, float]], unit: str = "s", digits: int = 3
) -> Measurement:
    """The row for pairs that were measured one right after the other; the ratio is the median of theirs."""
    return Measurement(
        what,
        against,
        f"{statistics.median(a for a, _ in pairs):.{digits}f} {unit}",
        f"{statistics.median(b for _, b in pairs):.{digits}f} {unit}",
        statistics.median(a / b for a, b in pairs),
        limit,
    )


def paired(
    what: str, against: str, limit: float, function: Callable[[], float], reference: Callable[[], float], rounds: int
) -> Measurement:
    """Measure both sides in each round, in seconds; the ratio is the median of the rounds' ratios.

    What lives before the rounds begin is set apart from garbage collection, so that a collection during one side does
    not pay for models that other measurements have left.
    """
    function(), reference()  # warm up
    gc.collect()
    gc.freeze()
    pairs = [(function(), reference()) for _ in range(rounds)]
    gc.unfreeze()
    return median_of_pairs(what, against, limit, pairs)


def make_console() -> Console:
    """A console that is wide enough for the tables where there is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 140)


def describe_machine(threads: int, *versions: str) -> str:
    """The machine in a line: processor, what torch finds that it can do, threads, versions of packages."""
    able = torch.backends.cpu.get_cpu_capability()
    return ", ".join((f"{platform.machine()} with {able}", f"{threads} threads", *versions))


def print_measurements(console: Console, rows: Sequence[Measurement]) -> bool:
    """Print the table; return whether all ratios are within their limits."""
    table = Table(box=None, pad_edge=False)
    for column in ("what", "against", "measured", "reference", "ratio", "limit", ""):
        table.add_column(column)
    for row in rows:
        verdict = "ok" if row.within else "OVER"
        table.add_row(row.what, row.against, row.measured, row.reference, f"{row.ratio:.2f}", f"{row.limit:g}", verdict)
    console.print(table)
    return all(row.within for row in rows)
