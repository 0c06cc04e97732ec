"""A match: the nodes that fit a pattern, and what became of them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from torch import fx

from embedl_deploy.graph.expected import Expected
from embedl_deploy.patterns.causes import Cause, Why
from embedl_deploy.patterns.points import QDQPoint
from embedl_deploy.patterns.tree import CompiledTree
from embedl_deploy.patterns.tree_match import TreeMatch
from embedl_deploy.validation.checked import checked

#: The name of the place of a pattern that failed before it had looked at any.
EVERYWHERE = "(everywhere)"


@runtime_checkable
class PatternLike(Protocol):
    """What a match needs of its pattern: every :class:`~embedl_deploy.patterns.Pattern` has it."""

    origin: str

    @property
    def name(self) -> str:
        """The name under which plans and reports list it."""

    @property
    def is_conversion(self) -> bool:
        """Whether it is applied before the fusions are looked for."""

    @property
    def is_grafted(self) -> bool:
        """Whether its graft takes the place of a match, and no ``replace`` of its own."""

    @property
    def qdq_points(self) -> Collection[QDQPoint]:
        """Where quantizers may be placed around the replacement."""

    def compiled_tree(self) -> CompiledTree:
        """Its tree, read and checked."""

    def check(self, match: "PatternMatch") -> str | None:
        """Why a place where the tree fits must be left alone."""

    def replace(self, pattern_match: "PatternMatch") -> list[fx.Node]:
        """Rewrite one match, and return the new nodes."""


class MatchStatus(Enum):
    """What became of a match."""

    PLANNED = "planned"
    APPLIED = "applied"
    SKIPPED = "skipped"
    FAILED = "failed"


@checked
@dataclass(eq=False)
class PatternMatch:
    """One place in a graph where a pattern fits.

    Attributes:
        pattern: The pattern.
        tree_match: Which node is what.
        apply: Whether the rewrite is to be made. Set it to ``False`` to leave this place as it is.
        status: What became of it; ``PLANNED`` until a plan is applied.
        cause: Why it is not applied, failed, or moved up; ``None`` otherwise.
        stage: ``"conversion"`` or ``"fusion"``.
        node_name: Name of the last matched node; ``"(everywhere)"`` where the pattern's ``match`` failed.
        node_names: Names of all matched nodes.
        twin: How many earlier matches there are of the same nodes by patterns of the same name.
        expected: What the matched nodes give; known while they are being replaced.
    """

    pattern: PatternLike
    tree_match: TreeMatch
    apply: bool = True
    status: MatchStatus = MatchStatus.PLANNED
    cause: Cause | None = None
    stage: str = field(init=False)
    node_name: str = field(init=False)
    node_names: tuple[str, ...] = field(init=False)
    replaced_by: tuple[str, ...] = ()
    twin: int = 0
    expected: Expected | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.stage = "conversion" if self.pattern.is_conversion else "fusion"
        self.node_names = tuple(node.name for node in self.tree_match.nodes)
        self.node_name = self.node_names[-1] if self.node_names else EVERYWHERE

    @property
    def pattern_name(self) -> str:
        """The pattern's name."""
        return self.pattern.name

    @property
    def reason(self) -> str:
        """Its cause in words; empty if there is none."""
        return "" if self.cause is None else str(self.cause)

    @property
    def why(self) -> Why | None:
        """The kind of its cause."""
        return None if self.cause is None else self.cause.why

    @property
    def key(self) -> tuple[str, str, tuple[str, ...], int]:
        """What tells it from every other match, and finds it again in a graph that was made again."""
        return self.stage, self.pattern_name, self.node_names, self.twin

    @property
    def nodes(self) -> list[fx.Node]:
        """All matched nodes."""
        return self.tree_match.nodes

    def __repr__(self) -> str:
        return f"PatternMatch({self.pattern_name} at {self.node_name!r}, apply={self.apply})"


@checked
@dataclass(frozen=True)
class Declined:
    """A match that must not be applied, and why.

    Attributes:
        pattern_name: The pattern.
        node_names: The nodes that it would have taken, the last of them last.
        reason: Why not.
    """

    pattern_name: str
    node_names: tuple[str, ...]
    reason: str

    @property
    def node_name(self) -> str:
        """Name of the last node."""
        return self.node_names[-1]

    def __str__(self) -> str:
        return f"{self.node_names[0]}: {self.pattern_name} declined: {self.reason}"


class Matches(list[PatternMatch]):
    """The matches of one pattern, and what else was found while looking for them.

    Attributes:
        declined: The places where the pattern declined.
        contained: Matches inside longer ones of its own.
        failed: The places where its ``check`` failed, each with what it raised.
    """

    @checked
    def __init__(
        self,
        matches: list[PatternMatch],
        declined: list[Declined],
        contained: Sequence[PatternMatch] = (),
        failed: Sequence[tuple[PatternMatch, BaseException]] = (),
    ) -> None:
        super().__init__(matches)
        self.declined = declined
        self.contained = tuple(contained)
        self.failed = tuple(failed)
