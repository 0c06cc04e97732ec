"""A block: a function that writes lines for a value of certain kinds."""

from collections.abc import Callable
from dataclasses import dataclass

from fuzz.writer import KINDS, Writer

MAPS = ("map1d", "map2d", "map3d")
ANY = KINDS


@dataclass(frozen=True)
class Block:
    """A production of the grammar.

    Attributes:
        name: The function's.
        write: Appends lines to a writer and replaces its value.
        kinds: What it takes.
        when: A further condition.
        drawn: Whether it is drawn like others, or only put where it is needed.
    """

    name: str
    write: Callable[[Writer], None]
    kinds: tuple[str, ...]
    when: Callable[[Writer], bool]
    drawn: bool

    def fits(self, w: Writer) -> bool:
        """Whether it can take the value that flows."""
        return w.value.kind in self.kinds and self.when(w)


def block(
    *kinds: str, when: Callable[[Writer], bool] = lambda w: True, drawn: bool = True
) -> Callable[[Callable[[Writer], None]], Block]:
    """Make a function a block."""

    def made(function: Callable[[Writer], None]) -> Block:
        return Block(function.__name__, function, kinds or ANY, when, drawn)

    return made
