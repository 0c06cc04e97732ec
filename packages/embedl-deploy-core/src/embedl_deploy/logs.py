"""Logs the stages of long calls, and keeps log messages of other packages off the user's terminal."""

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
    """Within the block, call ``tell`` with the name of each stage as it begins; other logging does not change."""

    class Forwarding(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    logger, handler = logging.getLogger(PROGRESS), Forwarding()
    level, propagate = logger.level, logger.propagate
    logger.propagate = propagate and logger.isEnabledFor(logging.INFO)  # only to users who already log at INFO
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


@contextmanager
def quiet(name: str, below: int) -> Iterator[None]:
    """Within the block, the logger of this name drops records less severe than ``below``.

    One thread at a time, because a logger has one level for all threads.
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
    """Within the block, torch does not log tracebacks for shapes that do not fit, because the error contains them."""
    return quiet("torch._subclasses.fake_tensor", below=logging.CRITICAL + 1)
