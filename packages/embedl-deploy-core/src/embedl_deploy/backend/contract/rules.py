"""The interface of check rules, and of what they find.

A rule looks at a whole file and reports every node that breaks it. The words are here, below the hooks that carry
them; :func:`embedl_deploy.check` runs the rules.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir


class Severity(Enum):
    """How serious a broken rule is.

    Attributes:
        ERROR: The compiler refuses the file, or computes something else.
        WARNING: The compiler takes the file, but the result is slower or less accurate than it could be.
        INFO: Worth knowing; nothing has to be done.
    """

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@checked
@dataclass(frozen=True, eq=False)
class Violation:
    """A node that breaks a rule.

    Attributes:
        node: Where.
        message: What is there and what the rule expects, with names and numbers.
        severity: Where it is not the rule's own.
    """

    node: "ir.Node"
    message: str
    severity: Severity | None = None


@checked
@dataclass(frozen=True, eq=False)
class Undecided:
    """A node that a rule applies to but cannot judge.

    Attributes:
        node: Where; ``None`` if it is the whole file.
        reason: What is not known, for example a shape.
    """

    node: "ir.Node | None"
    reason: str


class Rule(ABC):
    """One requirement of a compiler on a file.

    Attributes:
        id: Short and stable, with the backend's own prefix, for example ``"ACME-01"``; unique in a backend.
        severity: What it costs to break the rule.
        title: What the rule asks, in one sentence.
        remedy: How to fix a file that breaks it, in one sentence.
    """

    id: ClassVar[str]
    severity: ClassVar[Severity]
    title: ClassVar[str]
    remedy: ClassVar[str]

    @abstractmethod
    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Give every place that breaks the rule, and every place that it cannot judge.

        Args:
            model: The file, with shapes and types where they can be inferred. Must not be changed.
        """
