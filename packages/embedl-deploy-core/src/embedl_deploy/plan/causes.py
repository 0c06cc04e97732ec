"""Why a node is outside all fused modules, and what a pattern says of a node."""

from dataclasses import dataclass
from enum import Enum

from embedl_deploy.patterns.causes import Why


class WhyUnfused(Enum):
    """Why a node is unfused; the values are stable, and stand in reports as JSON under ``unfused_causes``.

    Attributes:
        UNSUPPORTED: The hardware cannot run it.
        FAILED: A method of a pattern that matches it raised, or gave what it must not.
        SWITCHED_OFF: The plan says so.
        DECLINED: A pattern matches it, but the rewrite would be wrong here.
        OVERLAPS: A pattern matches it and other nodes, some of which another rewrite has taken.
        NO_MATCH: No pattern matches it.
    """

    UNSUPPORTED = "unsupported"
    FAILED = "failed"
    SWITCHED_OFF = "switched_off"
    DECLINED = "declined"
    OVERLAPS = "overlaps"
    NO_MATCH = "no_match"


@dataclass(frozen=True)
class NotTaken:
    """Why no pattern has taken a node.

    Attributes:
        why: The kind.
        pattern: The pattern that came nearest to taking it, where there is one.
        reason: Its reason, in words.
    """

    why: WhyUnfused
    pattern: str = ""
    reason: str = ""

    def __str__(self) -> str:
        match self.why:
            case WhyUnfused.FAILED:
                return f"{self.pattern} failed: {self.reason}"
            case WhyUnfused.OVERLAPS:
                return f"{self.pattern} {self.reason}"
            case WhyUnfused.NO_MATCH:
                return "no fusion has taken it"
            case WhyUnfused.SWITCHED_OFF | WhyUnfused.DECLINED | WhyUnfused.UNSUPPORTED:
                return self.reason


class Verdict(Enum):
    """What a pattern says of a node; the values are stable, and stand in answers as JSON under ``why_not_causes``.

    Attributes:
        APPLIES: It takes the node.
        SKIPPED: It matches, and is not applied; the code says why: ``overlaps`` or ``switched_off``.
        FAILED: A method of it raised, or gave what it must not.
        DECLINED: It matches, but the rewrite would be wrong here.
        DOES_NOT_MATCH: It has an element for the node, but the nodes around it are others.
        NO_PATTERN: No pattern has an element for the node.
    """

    APPLIES = "applies"
    SKIPPED = "skipped"
    FAILED = "failed"
    DECLINED = "declined"
    DOES_NOT_MATCH = "does_not_match"
    NO_PATTERN = "no_pattern"


@dataclass(frozen=True)
class Answer:
    """What a pattern says of a node.

    Attributes:
        node: The name that was asked about, or of a node inside the module that was.
        verdict: The kind.
        pattern: The pattern; empty where none has an element for the node.
        taken: The nodes of its match, where they are told.
        reason: Why, in words.
        why: The kind of a match's cause, where it has one.
    """

    node: str
    verdict: Verdict
    pattern: str = ""
    taken: tuple[str, ...] = ()
    reason: str = ""
    why: Why | None = None

    @property
    def code(self) -> str:
        """The verdict's value; of a match that is skipped, that of its cause."""
        return self.why.value if self.verdict is Verdict.SKIPPED and self.why is not None else self.verdict.value

    def to_dict(self) -> dict[str, str | None]:
        """The code and what it is about, for JSON."""
        return {"node": self.node, "pattern": self.pattern or None, "cause": self.code}

    def __str__(self) -> str:
        if self.verdict is Verdict.NO_PATTERN:
            return f"{self.node}: no pattern has an element for it"
        said = "does not match" if self.verdict is Verdict.DOES_NOT_MATCH else self.verdict.value
        where = f" ({' → '.join(self.taken)})" if self.taken else ""
        return f"{self.node}: {self.pattern} {said}{where}" + (f": {self.reason}" if self.reason else "")
