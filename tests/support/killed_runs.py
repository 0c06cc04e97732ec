"""Runs of ``tune`` and ``sensitivity`` that are killed with SIGKILL and started again, each in a process of its own.

``python -m support.killed_runs FOLDER SEED`` prints what happened as JSON. The processes are forked from this one,
which has imported everything, so that a run takes a second.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from embedl_deploy.quantize import quantize
from embedl_deploy.sensitivity import api, sensitivity
from embedl_deploy.tuning import builds, tune
from support.tunable import Chip, Residual, transformed

#: How long the compiler takes, and a batch.
SECONDS = 0.03


class Noting:
    """Does a function, slowly, and notes in a file each time that it is done."""

    def __init__(self, function: Callable[..., Any], log: Path) -> None:
        self.function, self.log = function, log

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        done = self.function(*args, **kwargs)
        time.sleep(SECONDS)
        with self.log.open("a") as file:
            file.write("done\n")
        return done


def tuned(result: Any, x: torch.Tensor, state: Path | None, log: Path) -> Any:
    builds.compile_onnx = Noting(Chip(), log)
    found = tune(result, [x], target="sm89", state=state, progress=False)
    return {"trials": found.to_dict()["trials"], "policy": found.policy.to_dict()}


def measured(result: Any, x: torch.Tensor, state: Path | None, log: Path) -> Any:
    model = quantize(result, [x], progress=False)
    api.add_batch = Noting(ADD_BATCH, log)
    return sensitivity(model, [x * factor for factor in range(1, 13)], state=state, progress=False).to_dict()


def evaluated(result: Any, x: torch.Tensor, state: Path | None, log: Path) -> Any:
    model = quantize(result, [x], progress=False)
    evaluate = Noting(lambda candidate: float(candidate(x).sum()), log)
    return sensitivity(model, evaluate=evaluate, state=state, progress=False).to_dict()


ADD_BATCH = api.add_batch
WORKS = {"tune": tuned, "sensitivity": measured, "evaluate": evaluated}


def kill_at_save(number: int, where: str) -> None:
    """Make the process kill itself in its save of that number: in the text's middle, before or after the renaming."""
    count, write, replace = 0, Path.write_text, os.replace

    def writing(self: Path, text: str, **settings: Any) -> int:
        nonlocal count
        if self.name != "state.json":
            return write(self, text, **settings)
        count += 1
        if count == number and where == "half":
            write(self, text[: len(text) // 2], **settings)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, text, **settings)

    def replacing(source: Any, target: Any) -> None:
        here = Path(target).name == "state.json" and count == number
        if here and where == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if here and where == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    Path.write_text, os.replace = writing, replacing  # type: ignore[method-assign, assignment]  # of this process alone


def attempt(run: Callable[[], Any], answer: Path, seconds: float | None, at: tuple[int, str] | None) -> bool:
    """Whether a run in a process of its own comes to its end, which writes the answer; it may be killed before."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            if at is not None:
                kill_at_save(*at)
            answer.write_text(json.dumps(run()))
            os._exit(0)
        os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, "the run failed"
    return True


def story(name: str, folder: Path, seed: int) -> dict[str, Any]:
    """An uninterrupted run, and one that is killed again and again."""
    folder.mkdir()
    result, x = transformed(Residual, (2, 3, 8, 8))
    work, log, answer, state = WORKS[name], folder / "log", folder / "answer", folder / "state.json"
    began = time.monotonic()
    assert attempt(lambda: work(result, x, None, log), answer, None, None)
    took = time.monotonic() - began
    whole, wanted = log.read_text().count("done"), json.loads(answer.read_text())
    log.write_text("")
    answer.unlink()
    chance = random.Random(seed)
    places = ((1, "half"), (1, "before"), (2, "after"), (1, "half"))
    kills: list[dict[str, Any]] = [{"seconds": None, "at": place} for place in places]
    kills += [{"seconds": chance.uniform(0.1, 0.7) * took, "at": None} for _ in range(2)]
    killed, left = 0, []
    for kill in kills:
        killed += not attempt(lambda: work(result, x, state, log), answer, **kill)
        left.append(sorted(path.name for path in folder.iterdir()))
    assert attempt(lambda: work(result, x, state, log), answer, None, None)
    return {
        "whole": whole,
        "killed": killed,
        "done": log.read_text().count("done"),
        "same": json.loads(answer.read_text()) == wanted,
        "left": sorted(path.name for path in folder.iterdir()),
        "half_written": any(
            name.startswith(".state.json.") and name != ".state.json.lock" for names in left for name in names
        ),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, seed = Path(sys.argv[1]), int(sys.argv[2])
    sys.stdout.write(json.dumps({name: story(name, where / name, seed) for name in WORKS}))
