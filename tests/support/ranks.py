"""Ranks of torch.distributed, each in a process that is forked from this one, which has imported everything."""

import json
import os
import socket
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from embedl_deploy.errors import EmbedlDeployError


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_ranks(
    size: int, work: Callable[[int], Any], folder: Path, *, patience: float = 240, seconds: float = 300
) -> list[dict[str, Any]]:
    """Do something on several ranks with gloo.

    Args:
        size: How many ranks.
        work: What each does: takes its rank, returns what JSON has.
        folder: Where they write their answers.
        patience: The timeout of the group, in seconds: how long ranks wait for one that does not come.
        seconds: How long they may take; ranks that are not done then are killed, and have ``"hung"`` as their answer.

    Returns:
        For each rank ``value``, or ``error``, ``message`` and ``ranks``; ``killed``, or ``hung``; and ``seconds``.
    """
    port = free_port()
    began = time.monotonic()
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            _live(rank, size, port, patience, work, folder / f"{rank}.json")
        children.append(child)
    answers: list[dict[str, Any]] = [{} for _ in children]
    waiting = dict(enumerate(children))
    while waiting:
        for rank, child in list(waiting.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del waiting[rank]
                path = folder / f"{rank}.json"
                told = json.loads(path.read_text()) if status == 0 else {"killed": os.WTERMSIG(status)}
                path.unlink(missing_ok=True)
                answers[rank] = {**told, "seconds": time.monotonic() - began}
        if waiting and time.monotonic() - began > seconds:
            for rank, child in waiting.items():
                os.kill(child, 9)
                os.waitpid(child, 0)
                answers[rank] = {"hung": True, "seconds": seconds}
            waiting = {}
        time.sleep(0.01)
    return answers


def _live(rank: int, size: int, port: int, patience: float, work: Callable[[int], Any], answer: Path) -> None:
    """The life of one rank, which ends the process."""
    try:  # this is a copy of the parent, which must not go on in two processes
        dist.init_process_group(
            "gloo",
            rank=rank,
            world_size=size,
            init_method=f"tcp://127.0.0.1:{port}",
            timeout=timedelta(seconds=patience),
        )
        try:
            told = {"value": work(rank)}
        except EmbedlDeployError as error:
            told = {
                "error": type(error).__name__,
                "message": str(error),
                "ranks": {str(rank): what for rank, what in getattr(error, "ranks", {}).items()},
                "cause": type(error.__cause__).__name__,
            }
        answer.write_text(json.dumps(told))
        os._exit(0)
    finally:
        traceback.print_exc()
        os._exit(1)
