"""What a search has tried, to be drawn as a frontier."""

from dataclasses import dataclass
from typing import Any

from embedl_deploy.errors import InputError
from embedl_deploy.validation.checked import checked

#: Larger values are not drawn: their difference would be infinite.
_LARGEST = 1e300


@checked
@dataclass(frozen=True)
class FrontierPoint:
    """What a search has tried.

    Attributes:
        objective: What it costs; less is better.
        accuracy: What it keeps; more is better.
        decision: What was decided, in words.
        chosen: Whether the search ended with it.
    """

    objective: float
    accuracy: float
    decision: str
    chosen: bool = False

    def __post_init__(self) -> None:
        if max(abs(self.objective), abs(self.accuracy)) > _LARGEST:
            raise InputError(f"the decision {self.decision!r} has a value that is too large to draw")


@checked
@dataclass(frozen=True)
class Frontier:
    """What a search has seen.

    Attributes:
        objective: What the points' ``objective`` is, with its unit.
        accuracy: What their ``accuracy`` is, with its unit.
        points: In the order in which they were tried.
        not_drawn: Decisions without a place in the drawing: not built, or as accurate as the model in float.
    """

    objective: str
    accuracy: str
    points: tuple[FrontierPoint, ...]
    not_drawn: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        points = [dict(vars(point)) for point in self.points]
        return {
            "objective": self.objective,
            "accuracy": self.accuracy,
            "points": points,
            "not_drawn": list(self.not_drawn),
        }
