"""A law: a function that tries something on a network, and raises where it does not hold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Broken(Exception):  # noqa: N818 - a law is broken
    """What a law says when it does not hold."""


class LeftOut(Exception):  # noqa: N818 - a network is left out
    """What a law says of a network that it has nothing to say about."""


@dataclass(frozen=True)
class Law:
    """Something that is to hold for every network.

    Attributes:
        name: The function's.
        hold: Tries it; raises :class:`Broken`, or whatever the code under test raises.
        share: The part of all networks that it is tried on, because it is dear.
    """

    name: str
    hold: Callable[[Any], None]
    share: float


def law(share: float = 1.0) -> Callable[[Callable[[Any], None]], Law]:
    """Make a function a law."""
    return lambda function: Law(function.__name__, function, share)
