"""A lock for state that only one thread of a process may change at a time.

``torch.fx`` replaces ``nn.Module.__call__`` and ``nn.Module.__getattr__`` while it traces, ``torch.export`` and
``torch.onnx`` keep state of their own in their modules, and redirecting ``sys.stderr``, setting the level of a
logger or ignoring a warning is seen by everybody. Whoever does such a thing holds this lock; the same thread may take
it again.

``torch.export`` also switches oneDNN off for all threads while it traces, and what they compute meanwhile differs in
the last bits. So a result that must be the same again is computed with the lock, too.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

#: Held while global state of Python or torch is replaced, until it is back.
global_state = threading.RLock()


@contextmanager
def random_numbers_kept(devices: Iterable[int] = ()) -> Iterator[None]:
    """After the block, torch's generators are in the state that they were in before. One thread at a time.

    Args:
        devices: Indices of CUDA devices whose generators are kept as well.
    """
    with global_state, torch.random.fork_rng(devices=list(devices)):  # noqa: TID251 - the one place
        yield


@contextmanager
def called_exclusively(model: nn.Module) -> Iterator[None]:
    """Within the block each call of a model holds the lock, but not what is done between calls.

    Args:
        model: One that no other thread calls.
    """
    before, forward = vars(model).get("forward"), model.forward

    def alone(*args: Any, **kwargs: Any) -> Any:
        with global_state:
            return forward(*args, **kwargs)

    object.__setattr__(model, "forward", alone)
    try:
        yield
    finally:
        object.__delattr__(model, "forward")
        if before is not None:
            object.__setattr__(model, "forward", before)
