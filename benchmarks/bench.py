"""What the transformation costs, as ratios measured side by side in one run; prints a table.

Timings on shared machines are noisy: each ratio is the median of several rounds, and within a round both sides are
measured one right after the other. The exit code is 1 if a ratio is over its limit.
"""

import argparse
import copy
import gc
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import fx, nn

from embedl_deploy import transform
from torchvision_import import import_torchvision


@dataclass(frozen=True)
class Measurement:
    """One row of the table."""

    what: str
    against: str
    measured: str
    reference: str
    ratio: float
    limit: float


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _paired(
    what: str, against: str, limit: float, function: Callable[[], float], reference: Callable[[], float], rounds: int
) -> Measurement:
    """Measure both sides in each round; the ratio is the median of the rounds' ratios.

    What lives before the rounds begin is set apart from garbage collection, so that a collection during one side does
    not pay for models that other measurements have left.
    """
    function(), reference()  # warm up
    gc.collect()
    gc.freeze()
    pairs = [(function(), reference()) for _ in range(rounds)]
    gc.unfreeze()
    return Measurement(
        what,
        against,
        f"{statistics.median(a for a, _ in pairs):.3f} s",
        f"{statistics.median(b for _, b in pairs):.3f} s",
        statistics.median(a / b for a, b in pairs),
        limit,
    )


def time_of_transform(rounds: int) -> Measurement:
    """transform(resnet50) against what it cannot do without: a copy and a trace."""
    model = import_torchvision().models.resnet50(weights=None).eval()

    def needed() -> object:
        return fx.symbolic_trace(copy.deepcopy(model))

    return _paired(
        "transform(resnet50)",
        "deepcopy + symbolic_trace",
        1.5,
        lambda: _seconds(lambda: transform(model, backend="tensorrt")),
        lambda: _seconds(needed),
        rounds,
    )


class Chain(nn.Module):
    """Residual blocks in a row, about ``nodes`` nodes in all; each has two convolutions with batch norm."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleList(self._layer() for _ in range(2)) for _ in range(nodes // 7))

    @staticmethod
    def _layer() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 4, H, W) to the same."""
        for first, second in self.blocks:  # type: ignore[misc]  # a ModuleList of two
            x = torch.relu(second(torch.relu(first(x))) + x)
        return x


def growth_with_graph_size(rounds: int) -> Measurement:
    """Time for ten times as many nodes."""
    small, large = Chain(1_000).eval(), Chain(10_000).eval()
    return _paired(
        "transform, 10,000 nodes",
        "transform, 1,000 nodes",
        12,
        lambda: _seconds(lambda: transform(large, backend="tensorrt")),
        lambda: _seconds(lambda: transform(small, backend="tensorrt")),
        rounds,
    )


def time_of_import(rounds: int) -> Measurement:
    """A fresh interpreter importing the package, against one importing torch."""

    def run(statement: str) -> float:
        return _seconds(lambda: subprocess.run([sys.executable, "-c", statement], check=True))

    return _paired(
        "import embedl_deploy",
        "import torch",
        1.15,
        lambda: run("import embedl_deploy"),
        lambda: run("import torch"),
        rounds,
    )


_PEAK = """
import copy, resource, sys, psutil
from torchvision_import import import_torchvision
from embedl_deploy import transform
models = import_torchvision().models
transform(models.get_model({name!r}.replace("vit_b_16", "squeezenet1_1"), weights=None).eval(), backend="tensorrt")
model = models.get_model({name!r}, weights=None).eval()
before = psutil.Process().memory_info().rss
result = {expression}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


def peak_memory(name: str) -> Measurement:
    """Memory that transform takes at its peak, against the copy of the model that it must make."""

    def peak(expression: str) -> float:
        code = _PEAK.format(name=name, expression=expression)
        output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        return float(output) / 1e6

    measured, reference = peak('transform(model, backend="tensorrt")'), peak("copy.deepcopy(model)")
    return Measurement(
        f"peak memory of transform({name})",
        "peak memory of deepcopy",
        f"{measured:.0f} MB",
        f"{reference:.0f} MB",
        measured / reference,
        1.2,
    )


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds for each timing (default: %(default)s)")
    rounds = parser.parse_args().rounds
    rows = [
        time_of_transform(3 * rounds),
        growth_with_graph_size(max(3, rounds // 2)),
        time_of_import(rounds),
        peak_memory("vit_b_16"),
        peak_memory("vit_l_16"),
    ]
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}", highlight=False
    )
    table = Table(box=None, pad_edge=False)
    for column in ("what", "against", "measured", "reference", "ratio", "limit", ""):
        table.add_column(column)
    for row in rows:
        verdict = "ok" if row.ratio <= row.limit else "OVER"
        table.add_row(row.what, row.against, row.measured, row.reference, f"{row.ratio:.2f}", f"{row.limit:g}", verdict)
    console.print(table)
    return 0 if all(row.ratio <= row.limit for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
