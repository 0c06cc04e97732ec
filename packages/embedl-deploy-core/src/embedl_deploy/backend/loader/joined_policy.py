"""The policies of several plugins under one name."""

from dataclasses import dataclass

from embedl_deploy.numerics import QuantPoint, QuantPolicy


@dataclass(frozen=True)
class PolicyPart:
    """A policy of one plugin.

    Attributes:
        function: The policy.
        plugin: Name of the entry point.
        origin: Distribution and version that ship it.
    """

    function: QuantPolicy
    plugin: str
    origin: str


@dataclass(frozen=True)
class JoinedPolicy:
    """Policies that several plugins give under one name: each may object, and the first objection is told.

    Attributes:
        name: Their name.
        parts: In the order in which they are asked.
    """

    name: str
    parts: tuple[PolicyPart, ...]

    def __call__(self, point: QuantPoint) -> str | None:
        """The first reason against a quantizer at a point, or ``None``."""
        return next((reason for part in self.parts if (reason := part.function(point)) is not None), None)
