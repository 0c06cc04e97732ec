"""Failures of conformance checks, and their messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

from embedl_deploy.errors import PLUGIN_FAILURES


class ConformanceFailure(Exception):  # noqa: N818 - a check that fails is not an error of the program
    """A backend does not meet a requirement.

    Args:
        found: What is there.
        expected: What should be there.
        where: Which example or network, if it is about one.
    """

    def __init__(self, found: str, expected: str, where: str = "") -> None:
        super().__init__(f"{where}: {found}; expected {expected}" if where else f"{found}; expected {expected}")
        self.found = found
        self.expected = expected
        self.where = where


class DoesNotApply(Exception):  # noqa: N818 - as above
    """A check does not apply here; the message says why."""


class UnexpectedError(Exception):
    """Something raised while an example was tried; the cause is what was raised.

    Args:
        where: Which example or network.
    """

    def __init__(self, where: str) -> None:
        super().__init__(where)
        self.where = where


class Complaint(NamedTuple):
    """A failed check in words.

    Attributes:
        where: Which example or network; empty if it is about none.
        found: What is there.
        expected: What should be there.
    """

    where: str
    found: str
    expected: str


@contextmanager
def trying(where: str) -> Iterator[None]:
    """Say ``where`` of everything that is raised inside."""
    try:
        yield
    except DoesNotApply:
        raise
    except ConformanceFailure as failure:
        if failure.where:
            raise
        raise ConformanceFailure(failure.found, failure.expected, where) from None
    except PLUGIN_FAILURES as error:  # a backend's code may raise anything
        raise UnexpectedError(where) from error


def complaint_of(error: BaseException, packages: frozenset[str]) -> Complaint:
    """What to tell about an exception that a check raised.

    Args:
        error: The exception.
        packages: Names of the backend's packages, as :func:`package_of` gives them: the last line that was run in
            them is told.
    """
    if isinstance(error, ConformanceFailure):
        return Complaint(error.where, error.found, error.expected)
    where = error.where if isinstance(error, UnexpectedError) else ""
    chain = list(_causes(error))
    if isinstance(error, UnexpectedError) and len(chain) > 1:
        chain = chain[1:]
    innermost = chain[-1]
    lines = [line for one in reversed(chain) if (line := _last_line_in(one.__traceback__, packages))]
    raised = lines[0] if lines else _last_line_in(innermost.__traceback__, None)
    message = " ".join(str(innermost).split()) or "no message"
    at = f", raised at {raised}" if raised else ""
    return Complaint(where, f"{type(innermost).__name__}: {message}{at}", "no exception")


def package_of(module: str) -> str:
    """The package that is a backend's own: the first part of a module's name; within this project's, two parts."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == __name__.partition(".")[0] else parts[0]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from, outermost first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__


def _last_line_in(traceback: TracebackType | None, packages: frozenset[str] | None) -> str | None:
    """``file:line, in function`` of the innermost frame of some packages, or of any."""
    found = None
    while traceback is not None:
        frame = traceback.tb_frame
        if packages is None or package_of(str(frame.f_globals.get("__name__", ""))) in packages:
            found = f"{frame.f_code.co_filename}:{traceback.tb_lineno}, in {frame.f_code.co_name}"
        traceback = traceback.tb_next
    return found
