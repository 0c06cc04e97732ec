"""The process that a compiler runs in: reads jobs from standard input, answers on standard output.

A job is a :class:`Job`, an answer a tuple whose first element says what it is; both are pickled. Standard output is for
answers alone: what the compiler prints, in Python or not, goes to standard error. When the other side goes away, this
process and those that the compiler has started end.
"""

import logging
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import torch

from embedl_deploy.backend import CompileOptions
from embedl_deploy.errors import PLUGIN_FAILURES, EmbedlDeployError


@dataclass(frozen=True)
class Job:
    """A file to compile.

    Attributes:
        compiler: The pickled compiler.
        onnx: The file.
        options: What was asked for.
        folder: The working directory.
        paths: Where modules are found.
        environment: The environment's variables.
        log_level: Of messages that are wanted.
        threads: How many torch computes with.
    """

    compiler: bytes
    onnx: Path
    options: CompileOptions
    folder: str
    paths: tuple[str, ...]
    environment: Mapping[str, str]
    log_level: int
    threads: int


def serve() -> None:
    """Take jobs until there are no more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    lock = threading.Lock()

    def answer(*parts: Any) -> None:
        content = pickle.dumps(parts)
        with lock:
            try:
                answers.write(content)
                answers.flush()
            except BrokenPipeError:
                _end_all()

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(1)  # lets files that are half written be removed

    signal.signal(signal.SIGTERM, terminate)
    logging.getLogger().handlers = [_Forwarding(answer)]
    jobs: queue.Queue[Job] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, jobs), daemon=True).start()
    answer("ready")
    while True:
        _run(jobs.get(), answer)


def _read(stream: BinaryIO, jobs: "queue.Queue[Job]") -> None:
    while True:
        try:
            jobs.put(pickle.load(stream))
        except EOFError:
            _end_all()


def _end_all() -> None:
    """End this process and those that the compiler has started, because the other side went away."""
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _run(job: Job, answer: Any) -> None:
    os.chdir(job.folder)
    sys.path[:] = job.paths
    os.environ.clear()
    os.environ.update(job.environment)
    logging.getLogger().setLevel(job.log_level)
    torch.set_num_threads(job.threads)  # a compiler that times engines uses as many
    try:
        compiler = pickle.loads(job.compiler)
    except Exception as error:  # noqa: BLE001 - importing and unpickling a plugin's class may raise anything
        answer("not_loaded", f"{type(error).__name__}: {error}")
        return
    answer("started")
    try:
        build = compiler.build(job.onnx, job.options, lambda *step: answer("progress", *step))
    except EmbedlDeployError as error:
        _answer_error(error, answer)
    except PLUGIN_FAILURES as error:  # a plugin's compiler may raise anything
        answer("failed", f"{type(error).__name__}: {error}", traceback.format_exc())
    else:
        try:
            answer("build", build)
        except Exception:  # noqa: BLE001 - what cannot be pickled raises anything
            answer("unsendable", repr(build))


def _answer_error(error: EmbedlDeployError, answer: Any) -> None:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - as above
        answer("failed", f"{type(error).__name__}: {error}", traceback.format_exc())
    else:
        answer("error", error)


class _Forwarding(logging.Handler):
    """Sends records to the other side."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self._answer = answer

    def emit(self, record: logging.LogRecord) -> None:
        plain = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        self._answer("log", {**plain, "msg": record.getMessage(), "pathname": record.pathname, "lineno": record.lineno})
