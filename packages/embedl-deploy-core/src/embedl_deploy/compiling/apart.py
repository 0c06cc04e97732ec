"""Runs a compiler in a separate process, which may hang or crash without affecting this one.

The process is kept for the next compilation by a compiler of the same module, because importing torch takes longer than
compiling a small network.
"""

import atexit
import logging
import os
import pickle
import sys
import threading
from pathlib import Path

import torch

from embedl_deploy.backend import Build, CompileOptions, Compiler, Progress
from embedl_deploy.compiling.child import Job
from embedl_deploy.compiling.worker import FailedError, NotApartError, TimeOverError, Worker
from embedl_deploy.errors import PLUGIN_FAILURES, EmbedlDeployError


def build_apart(compiler: Compiler, onnx: Path, options: CompileOptions, progress: Progress) -> Build:
    """What ``compiler.build`` gives, from another process.

    Raises:
        NotApartError: The compiler's class cannot be imported there, or it holds what cannot be pickled.
        EndedError: The process ended.
        FailedError: The compiler raised something else than an error of ours.
        EmbedlDeployError: As the compiler raised it.
        CompileError: It took longer than the timeout.
    """
    if type(compiler).__module__ == "__main__":
        raise NotApartError(f"its class {type(compiler).__qualname__} is defined in __main__")
    if not sys.executable:
        raise NotApartError("there is no Python interpreter to start")
    try:
        sent = pickle.dumps(compiler)
    except PLUGIN_FAILURES as error:  # what a plugin's compiler holds may raise anything
        raise NotApartError(f"it cannot be pickled: {type(error).__name__}: {error}") from error
    environment, level = dict(os.environ), logging.getLogger().level
    job = Job(sent, onnx, options, os.getcwd(), tuple(sys.path), environment, level, torch.get_num_threads())
    worker = _taken(type(compiler))
    keep = False
    try:
        build = worker.run(job, progress)
        keep = True
    except (FailedError, NotApartError):
        keep = True
        raise
    except EmbedlDeployError as error:
        keep = not isinstance(error, TimeOverError)
        raise
    finally:  # after Ctrl-C too
        if keep:
            _leave(worker)
        else:
            worker.end(gently=True)
    return build


#: The process that waits for the next file, if there is one.
_idle: list[Worker] = []
_lock = threading.Lock()


def _taken(kind: type) -> Worker:
    """A process in which the compiler's module is the one of this process: the one that waits, or a new one."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    changed = os.stat(file).st_mtime_ns if file is not None and os.path.isfile(file) else None
    key = (os.getpid(), kind.__module__, file, changed)
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.key == key and worker.is_alive:
                return worker
            worker.end()
    return Worker(key)


def _leave(worker: Worker) -> None:
    """Let a process wait for the next file, in place of one that does."""
    with _lock:
        while _idle:
            _idle.pop().end()
        if worker.is_alive:
            _idle.append(worker)


@atexit.register
def _end_all() -> None:
    with _lock:
        while _idle:
            _idle.pop().end()
