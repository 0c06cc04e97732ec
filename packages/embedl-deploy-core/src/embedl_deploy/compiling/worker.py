"""A process that compiles files, seen from the one that started it.

The process is started, not forked: threads and locks of torch do not survive a fork.
"""

import logging
import math
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO, Any

from embedl_deploy.backend import Build, Progress
from embedl_deploy.compiling.child import Job
from embedl_deploy.errors import CompileError

#: What the process runs: the paths come first, because they say where the rest is found.
_START = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from embedl_deploy.compiling.child import serve
serve()
"""
#: Seconds in which a process must have imported what it needs; machines under load are slow at it.
_TO_START = 300.0
#: Seconds that a process has to end by itself and remove what it has half written.
_TO_END = 1.0


class NotApartError(Exception):
    """A compiler cannot be sent to another process; the message says why."""


class EndedError(Exception):
    """The process ended before it answered; the message says how."""


class FailedError(Exception):
    """The compiler raised an error that is not one of ours, or gave what cannot be sent; the message is its words.

    Attributes:
        details: The traceback in the other process, or nothing.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details

    def __str__(self) -> str:
        return "\n".join(filter(None, [self.args[0], self.details]))


class TimeOverError(CompileError):
    """The time is over."""


class Worker:
    """A process that compiles one file after the other."""

    def __init__(self, key: object) -> None:
        self.key = key
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, and the other ends with all that it has started
        )
        assert self._process.stdin is not None  # they are pipes
        assert self._process.stdout is not None
        self._answers: queue.Queue[tuple[Any, ...] | None] = queue.Queue()
        self._reader = threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True)
        self._reader.start()
        self._jobs = self._process.stdin
        self._send(sys.path)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def run(self, job: Job, progress: Progress) -> Build:
        """Compile a file.

        Raises:
            NotApartError: The compiler cannot be loaded there.
            EndedError: The process ended.
            FailedError: The compiler raised something else than an error of ours.
            EmbedlDeployError: As the compiler raised it.
            TimeOverError: It took longer than the timeout.
        """
        self._send(job)
        limit, over = time.monotonic() + _TO_START, f"The process for compiling {job.onnx.name} did not start."
        while True:
            kind, *parts = self._answer(limit, over)
            if kind == "started" and job.options.timeout is not None:
                limit = time.monotonic() + job.options.timeout
                over = f"Compiling {job.onnx.name} took longer than its timeout of {job.options.timeout:g} s."
            elif kind == "started":
                limit = math.inf
            elif kind == "progress":
                progress(*parts)
            elif kind == "log":
                _log(parts[0])
            elif kind == "build":
                return parts[0]  # type: ignore[no-any-return]  # who asked for it looks at its type
            elif kind == "error":
                raise parts[0]
            elif kind == "not_loaded":
                raise NotApartError(f"its class cannot be imported in a new process: {parts[0]}")
            elif kind == "unsendable":
                raise FailedError(f"TypeError: {parts[0]} cannot be sent from the compiler's process")
            elif kind == "failed":
                raise FailedError(*parts)

    def _answer(self, limit: float, over: str) -> tuple[Any, ...]:
        wait = limit - time.monotonic()
        try:
            answer = self._answers.get(timeout=min(max(wait, 0), threading.TIMEOUT_MAX) if wait > 0 else 0.001)
        except queue.Empty:
            raise TimeOverError(over) from None
        if wait <= 0 and (answer is None or answer[0] in ("progress", "log")):
            raise TimeOverError(over)
        if answer is None:
            raise EndedError(_ending(self._process.wait()))
        return answer

    def _send(self, thing: object) -> None:
        try:
            pickle.dump(thing, self._jobs)
            self._jobs.flush()
        except OSError:  # the process has ended; the next answer says how
            return

    def end(self, *, gently: bool = False) -> None:
        """End the process, and those that it has started; gently, after it has removed what it has half written."""
        if gently:
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_TO_END)
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        self._process.wait()
        with suppress(OSError):  # what was not sent any more
            self._jobs.close()
        self._reader.join(_TO_END)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # it has ended
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, number)
            else:
                self._process.kill()


def _read(stream: IO[bytes], answers: "queue.Queue[tuple[Any, ...] | None]") -> None:
    """Hand on what comes; ``None`` at the end, or where it is not an answer."""
    try:
        while True:
            answers.put(pickle.load(stream))
    except Exception:  # noqa: BLE001 - the process ended in the middle, or a class cannot be imported here
        answers.put(None)
    stream.close()


def _log(record: dict[str, Any]) -> None:
    logger = logging.getLogger(record["name"])
    if logger.isEnabledFor(record["levelno"]):
        logger.handle(logging.makeLogRecord(record))


def _ending(code: int) -> str:
    """An exit status in words."""
    if code >= 0:
        return f"it ended its process with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"it crashed ({name})"
