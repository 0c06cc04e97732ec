"""What became of a law on a network."""

from dataclasses import dataclass

#: Held; refused with an error of the project's own; broken; not for this network.
HELD, REFUSED, BROKEN, LEFT_OUT = "held", "refused", "broken", "left out"


@dataclass(frozen=True)
class Outcome:
    """What became of a law on a network.

    Attributes:
        law: The law's name.
        status: :data:`HELD`, :data:`REFUSED`, :data:`BROKEN` or :data:`LEFT_OUT`.
        kind: Exception and message without names and numbers, by which outcomes are grouped.
        text: The message, and the traceback of what is no error of the project's own.
    """

    law: str
    status: str
    kind: str = ""
    text: str = ""
