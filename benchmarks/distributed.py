"""Several processes that quantize together: the same bits, an error on every rank, and the time that it takes.

    python benchmarks/distributed.py [--models NAME ...] [--sizes N ...] [--methods NAME ...] [--rounds N]
        [--only bits|failures|time]

Ranks are started by ``torchrun`` on this machine, with gloo, one thread each. A resnet18 and a small vision transformer
with random weights, and MiniLM-L6 with its own, are quantized by every method that finds scales or corrections, on 1 to
4 ranks, each with another order and an uneven part of the data; compared are the bits of all tensors, and the recipe.
Then one rank has no data, another model, or is killed. The exit code is 1 if a goal is missed.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from measurement import describe_machine, make_console

WORKER = Path(__file__).with_name("distributed_worker.py")
MODELS = ("resnet18", "vit", "minilm")
SIZES = (1, 2, 3, 4)
#: Seconds after which every rank has ended by an error.
MOST_SECONDS = 30
#: Merging, as a share of the calibration of the same data without; two ranks of a thread against one of two.
MOST_OVERHEAD, MOST_RATIO = 0.05, 1.1


def launch(size: int, threads: int, folder: Path, *arguments: str, limit: float = 3600) -> list[dict[str, Any]]:
    """What each rank of a worker that torchrun starts has written, by rank."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    ended = subprocess.run(
        [*command, str(WORKER), str(folder), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=limit,
    )
    answers = [folder / f"{rank}.json" for rank in range(size)]
    if ended.returncode or not all(path.exists() for path in answers):
        raise RuntimeError(f"The worker {' '.join(arguments)} failed on {size} ranks: {ended.stderr[-3000:]}")
    return [taken(path) for path in answers]


def taken(path: Path) -> dict[str, Any]:
    """The content of a file, which is deleted."""
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    path.unlink()
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def compare_bits(
    console: Console, folder: Path, models: Sequence[str], sizes: Sequence[int], methods: Sequence[str]
) -> bool:
    """Whether tensors and recipe are the same for every number of ranks; prints a row for each model and method."""
    table = Table(box=None, pad_edge=False)
    for column in ("model", "method", *(f"{size} ranks" if size > 1 else "1 rank" for size in sizes), ""):
        table.add_column(column)
    good = True
    for model in models:
        found = {size: launch(size, 1, folder, "bits", model, *methods) for size in sizes}
        for method in found[sizes[0]][0]:
            digests = {size: {answer[method] for answer in answers} for size, answers in found.items()}
            same = len(set().union(*digests.values())) == 1
            good = good and same
            shown = (" / ".join(sorted(digest[:8] for digest in digests[size])) for size in sizes)
            table.add_row(model, method, *shown, "same" if same else "DIFFERENT")
    console.print(table)
    return good


def compare_failures(console: Console, folder: Path) -> bool:
    """Whether all ranks end with an error that names rank 1, in time; prints a row for each way to fail.

    The ranks are started without torchrun, which ends all others itself when one has ended.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("rank 1 of 3", "seconds until all raise", "what rank 0 raised", ""):
        table.add_column(column, overflow="fold")
    good = True
    for what in ("is killed", "has no data", "has another model", "raises"):
        port, processes = str(free_port()), []
        for rank in range(3):
            settings = {"RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = {**os.environ, **settings, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, str(WORKER), str(folder), "failures", what]
            processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        codes = [process.wait(600) for process in processes]
        answers = [taken(path) if (path := folder / f"{rank}.json").exists() else {} for rank in range(3)]
        began = taken(folder / "began.json")["time"]
        ended = max(answer.get("time", 0.0) for answer in answers)
        named = [answer.get("ranks") == ["1"] for rank, answer in enumerate(answers) if rank != 1 or codes[1] == 0]
        fine = all(named) and len(named) >= 2 and ended - began <= MOST_SECONDS
        good = good and fine
        table.add_row(what, f"{ended - began:.1f}", answers[0].get("message", "nothing"), "ok" if fine else "MISSED")
    console.print(table)
    return good


def compare_times(console: Console, folder: Path, rounds: int) -> bool:
    """Whether merging costs little, and two ranks share the work; prints a row for each."""
    pairs, overheads = [], []
    for _ in range(rounds):  # in turn, because what else the machine does changes
        one = launch(1, 2, folder, "time", "resnet18")[0]["seconds"]
        answers = launch(2, 1, folder, "time", "resnet18")
        pairs.append((max(answer["seconds"] for answer in answers), one))
        overheads += answers[0]["overheads"]
    ratio = statistics.median(two / one for two, one in pairs)
    overhead = statistics.median(overheads)
    table = Table(box=None, pad_edge=False)
    for column in ("what", "measured", "limit", ""):
        table.add_column(column)
    shown = " against ".join(f"{statistics.median(times):.2f} s" for times in zip(*pairs, strict=True))
    verdict = "ok" if ratio <= MOST_RATIO else "MISSED"
    table.add_row(f"2 ranks of 1 thread against 1 of 2: {shown}", f"{ratio:.2f}", f"{MOST_RATIO:g}", verdict)
    verdict = "ok" if overhead <= MOST_OVERHEAD else "MISSED"
    table.add_row("merging, as a share of calibration", f"{overhead:.1%}", f"{MOST_OVERHEAD:.0%}", verdict)
    console.print(table)
    return ratio <= MOST_RATIO and overhead <= MOST_OVERHEAD


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="which (default: all)")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="numbers of ranks (default: 1 2 3 4)")
    parser.add_argument("--methods", nargs="+", default=[], help="of quantization (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of what is timed (default: %(default)s)")
    parser.add_argument("--only", choices=("bits", "failures", "time"), help="one of the tables")
    options = parser.parse_args()
    console = make_console()
    console.print(describe_machine(1, f"torch {torch.__version__}"), highlight=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Callable[[], bool]] = {
            "bits": lambda: compare_bits(console, folder, options.models, options.sizes, options.methods),
            "failures": lambda: compare_failures(console, folder),
            "time": lambda: compare_times(console, folder, options.rounds),
        }
        verdicts = [part() for part_name, part in parts.items() if options.only in (None, part_name)]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
