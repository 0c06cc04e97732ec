"""Many networks in worker processes: one that crashes or hangs costs its own outcome, no more."""

import multiprocessing
import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from fuzz.outcome import BROKEN, Outcome

#: Seconds that a network may take with all its laws.
TIMEOUT = 240.0
#: Networks after which a worker is replaced, so that what torch keeps does not add up.
LIFETIME = 400
PROCESS = "(the process)"
_SPAWN = multiprocessing.get_context("spawn")


Work = Callable[[int, tuple[str, ...]], list[Outcome]]


def _try(seed: int, only: tuple[str, ...]) -> list[Outcome]:
    import torch  # in the workers alone: the process that counts stays small

    from fuzz.trying import try_network

    torch.set_num_threads(1)
    return try_network(seed, only)


def _serve(connection: Connection, work: Work, only: tuple[str, ...]) -> None:
    while (seed := connection.recv()) is not None:
        connection.send(work(seed, only))


@dataclass
class _Worker:
    process: Any
    connection: Connection
    seed: int | None = None
    since: float = 0.0
    done: int = 0

    @staticmethod
    def start(work: Work, only: tuple[str, ...]) -> "_Worker":
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, work, only))
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def give(self, seed: int | None) -> None:
        self.seed, self.since = seed, time.monotonic()
        self.connection.send(seed)

    def end(self) -> None:
        if self.process.is_alive() and self.seed is None:
            self.connection.send(None)
            self.process.join(10)
        self.process.kill()
        self.process.join()
        self.connection.close()


def run_networks(
    seeds: Collection[int], only: Collection[str] = (), *, jobs: int = 1, timeout: float = TIMEOUT, work: Work = _try
) -> Iterator[tuple[int, list[Outcome]]]:
    """Try laws on the networks of some seeds.

    Args:
        seeds: The networks.
        only: Names of laws; by default those whose turn it is.
        jobs: How many processes.
        timeout: Seconds for a network.
        work: What a worker does with a seed.

    Yields:
        Seed and outcomes, in the order in which they are done.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    laws = tuple(only)
    waiting = iter(seeds)
    workers = [_Worker.start(work, laws) for _ in range(min(jobs, len(seeds)))]
    try:
        for worker in list(workers):
            _next(worker, waiting, workers)
        while workers:
            wait([worker.connection for worker in workers], timeout=1.0)
            for worker in list(workers):
                outcomes = _outcomes(worker, timeout)
                if outcomes is None:
                    continue
                assert worker.seed is not None
                yield worker.seed, outcomes
                worker.seed = None
                worker.done += 1
                if not worker.process.is_alive() or worker.done >= LIFETIME:
                    worker.end()
                    workers.remove(worker)
                    worker = _Worker.start(work, laws)
                    workers.append(worker)
                _next(worker, waiting, workers)
    finally:
        for worker in workers:
            worker.end()


def _next(worker: _Worker, waiting: Iterator[int], workers: list[_Worker]) -> None:
    seed = next(waiting, None)
    if seed is None:
        worker.end()
        workers.remove(worker)
    else:
        worker.give(seed)


def _outcomes(worker: _Worker, timeout: float) -> list[Outcome] | None:
    """What a worker has found; ``None`` while it is at it."""
    if worker.connection.poll():
        try:
            return worker.connection.recv()  # type: ignore[no-any-return]
        except EOFError:
            worker.process.join()
            text = f"the process ended with {worker.process.exitcode}"
            return [Outcome(PROCESS, BROKEN, text, text)]
    if time.monotonic() - worker.since > timeout:
        worker.process.kill()
        worker.process.join()
        return [Outcome(PROCESS, BROKEN, "it does not end", f"not done after {timeout:g} seconds")]
    return None
