"""Keeping other packages' logs out of the user's terminal."""

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from embedl_deploy.exclusive import global_state


@contextmanager
def quiet(name: str, below: int) -> Iterator[None]:
    """Within the block, the logger of this name says nothing less severe than ``below``; afterwards as before.

    One thread at a time: a logger has one level for all of them.
    """
    logger = logging.getLogger(name)
    with global_state:
        level = logger.level
        logger.setLevel(below)
        try:
            yield
        finally:
            logger.setLevel(level)


def fake_tensors_quiet() -> AbstractContextManager[None]:
    """Within the block, torch logs no traceback of its own where shapes do not fit: the error says it."""
    return quiet("torch._subclasses.fake_tensor", below=logging.CRITICAL + 1)
