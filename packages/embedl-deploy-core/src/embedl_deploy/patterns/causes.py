"""The causes why a match is or is not applied."""

from dataclasses import dataclass
from enum import Enum


class Why(Enum):
    """The kinds of causes; their values are stable, and stand beside the words in reports and plans as JSON.

    Attributes:
        OVERLAPS: Another match, of a pattern before it or earlier in the graph, takes one of its nodes.
        SWITCHED_OFF: The plan says so.
        FAILED: A method of its pattern raised, or gave what it must not.
        MOVED_UP: It is applied, because the match that it overlapped failed.
    """

    OVERLAPS = "overlaps"
    SWITCHED_OFF = "switched_off"
    FAILED = "failed"
    MOVED_UP = "moved_up"


@dataclass(frozen=True)
class Cause:
    """Why a match is as it is.

    Attributes:
        why: The kind.
        pattern: The pattern of the other match, where there is one.
        node: The node at which the other match ends.
        detail: What else to tell, in words.
    """

    why: Why
    pattern: str = ""
    node: str = ""
    detail: str = ""

    def __str__(self) -> str:
        match self.why:
            case Why.OVERLAPS:
                return f"overlaps {self.pattern} at {self.node}{self.detail}"
            case Why.SWITCHED_OFF:
                return "switched off in the plan"
            case Why.MOVED_UP:
                return f"moved up: {self.pattern} failed"
            case Why.FAILED:
                return self.detail


SWITCHED_OFF = Cause(Why.SWITCHED_OFF)
