"""Keeping other packages' logs out of the user's terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(name: str, below: int) -> Iterator[None]:
    """Within the block, the logger of this name says nothing less severe than ``below``; afterwards as before."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(below)
    try:
        yield
    finally:
        logger.setLevel(level)
