"""Models run one after another, each in a process of its own that has a time and memory limit; and what was found."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.backends import BACKENDS, DEFAULT

TIMEOUT, GIGABYTES = 600.0, 8.0
#: What runs one model; family, name, file, gigabytes, stages, device, backend and policy follow.
WORKER = (sys.executable, "-m", "zoo.worker")


@dataclass(frozen=True)
class Record:
    """What became of a model.

    Attributes:
        model: Its name.
        stages: By stage: ``ok``, ``seconds``, ``reason`` where it failed, and figures. A stage that was not tried is
            not in it.
        seconds: From the start of its process to the end.
    """

    model: str
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0

    def passed(self, stage: str) -> bool:
        """Whether a stage was tried, and its result is right."""
        return bool(self.stages.get(stage, {}).get("ok"))

    @property
    def failure(self) -> tuple[str, str] | None:
        """The first stage that failed, and why."""
        return next(((name, stage["reason"]) for name, stage in self.stages.items() if not stage["ok"]), None)


def read_records(path: Path) -> dict[str, Record]:
    """The records of a file of JSON lines, by model; of several for one model the last. No file, no records."""
    if not path.exists():
        return {}
    records = [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {record.model: record for record in records}


def run_models(
    family: str,
    names: Sequence[str],
    path: Path,
    *,
    timeout: float = TIMEOUT,
    gigabytes: float = GIGABYTES,
    stages: Sequence[str] | None = None,
    device: str = "cpu",
    backend: str = DEFAULT,
    policy: str | None = None,
) -> Iterator[Record]:
    """Run models, and add a line for each to a file as soon as it has ended.

    Args:
        family: Their family.
        names: Which of it.
        path: The file.
        timeout: Seconds for a model.
        gigabytes: Memory for a model.
        stages: What it goes through; by default all that the backend has.
        device: Where it and its inputs are.
        backend: The backend.
        policy: Where to quantize; by default the backend's own.
    """
    passed_on = (",".join(stages or BACKENDS[backend].stages), device, backend, policy or "")
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        record = _run(family, name, timeout, gigabytes, passed_on)
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(record)) + "\n")
        yield record


def _run(family: str, name: str, timeout: float, gigabytes: float, passed_on: Sequence[str]) -> Record:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        told, said = Path(folder, "stages"), Path(folder, "errors")
        told.touch()
        command = [*WORKER, family, name, str(told), str(gigabytes), *passed_on]
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with said.open("wb") as errors:
            worker = subprocess.Popen(
                command, stdout=errors, stderr=errors, env=environment, start_new_session=True, cwd=folder
            )
            try:
                status: int | None = worker.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                _end(worker)
        lines = [json.loads(line) for line in told.read_text(encoding="utf-8").splitlines()]
        text = said.read_text(encoding="utf-8", errors="replace")
    stages: dict[str, dict[str, Any]] = dict(lines)  # of the two lines of a stage the second
    begun = next((stage for stage, outcome in stages.items() if not outcome), "build")
    if status != 0:
        why = f"it took more than {timeout:g} seconds" if status is None else _death(status, text)
        stages[begun] = {"ok": False, "reason": why}
    return Record(name, stages, round(time.perf_counter() - start, 1))


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it has started, such as the one of a compiler."""
    with suppress(ProcessLookupError, PermissionError):  # all have ended
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def _death(status: int, text: str) -> str:
    """Why a process ended before its time."""
    if status < 0:
        return f"the process was ended by {signal.Signals(-status).name}"
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return f"the process ended with status {status}: {last}"
