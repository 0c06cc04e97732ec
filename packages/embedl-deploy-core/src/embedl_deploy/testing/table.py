"""A check: its name, what it requires, the fix, and the function that runs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from embedl_deploy.validation.checked import checked

SubjectT = TypeVar("SubjectT")


@checked
@dataclass(frozen=True)
class Check(Generic[SubjectT]):
    """One requirement on a backend.

    Attributes:
        id: Short and stable: what ``pytest -k`` selects it by.
        title: What it asks, as the end of a sentence about the pattern, the backend or the network.
        why: What goes wrong for users where it does not hold.
        advice: What to do when it fails.
        run: Looks, and gives what to tell of a check that holds, if anything. Raises :class:`ConformanceFailure` if it
            does not hold, :class:`DoesNotApply` if there is nothing to look at.
        fusions_only: Whether it does not apply to a conversion.
        backends_only: Whether it does not apply to an extension.
    """

    id: str
    title: str
    why: str
    advice: str
    run: Callable[[SubjectT], str | None]
    fusions_only: bool = False
    backends_only: bool = False
