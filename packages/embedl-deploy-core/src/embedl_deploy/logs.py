"""What is logged of a long call's stages, and keeping other packages' logs out of the user's terminal."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from embedl_deploy.exclusive import global_state

#: The logger of the stages that a long call goes through, at INFO.
PROGRESS = __name__


def stage(what: str) -> None:
    """Log what begins now, for whoever waits: ``translating into ONNX``."""
    logging.getLogger(PROGRESS).info("%s", what)


@contextmanager
def stages_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Within the block, ``tell`` is given each stage as it begins; what else is logged stays as it is."""

    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    logger, telling = logging.getLogger(PROGRESS), Telling()
    level, propagate = logger.level, logger.propagate
    logger.propagate = propagate and logger.isEnabledFor(logging.INFO)  # to those who have asked for it, as before
    logger.setLevel(logging.INFO)
    logger.addHandler(telling)
    try:
        yield
    finally:
        logger.removeHandler(telling)
        logger.setLevel(level)
        logger.propagate = propagate


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
