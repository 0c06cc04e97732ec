"""Answers about a graph that is not being changed, given once and remembered."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

AnswerT = TypeVar("AnswerT")

_answers: ContextVar[dict[Any, Any] | None] = ContextVar("answers", default=None)


@contextmanager
def graph_unchanged() -> Iterator[None]:
    """Within the block no graph is changed, so what was found out once need not be found out again.

    A block inside another continues with what the outer one remembers.
    """
    token = _answers.set({} if _answers.get() is None else _answers.get())
    try:
        yield
    finally:
        _answers.reset(token)


def remembered(question: Callable[[Any], AnswerT], subject: Hashable) -> AnswerT:
    """``question(subject)``; within :func:`graph_unchanged` asked once."""
    answers = _answers.get()
    if answers is None:
        return question(subject)
    key = (question, subject)
    if key not in answers:
        answers[key] = question(subject)
    return answers[key]  # type: ignore[no-any-return]  # what was stored under this question
