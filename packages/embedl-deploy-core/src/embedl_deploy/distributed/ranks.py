"""The ranks that do one thing together; here the one that works alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Ranks:
    """This process alone, where no process group was passed; also what :class:`Together` looks like from outside.

    Attributes:
        rank: Which of the processes this is.
        size: How many there are.
        grouped: Whether a process group was passed, even of one: then no result may depend on the order of the data.
    """

    rank = 0
    size = 1
    grouped = False

    @property
    def first(self) -> bool:
        """Whether this is the process that shows progress and logs."""
        return self.rank == 0

    def check(self) -> None:
        """Do nothing, if no other rank has failed; called now and then in long work.

        Raises:
            DistributedError: Another rank has failed, or is silent.
        """

    def gather(self, what: str, value: T) -> list[T]:
        """What each rank has, by rank; every rank calls this in the same place.

        Args:
            what: What is gathered, for messages.
            value: What this rank has; anything that can be pickled. Tensors on the CPU.

        Raises:
            DistributedError: A rank has failed, is silent, or does not come.
        """
        return [value]

    def agree(self, facts: Mapping[str, str]) -> None:
        """Refuse to go on where a fact differs from rank to rank.

        Args:
            facts: By what it is about, such as «weights», a text that is the same on every rank.

        Raises:
            DistributedError: One differs; the message names the ranks.
        """

    @contextmanager
    def alike(self) -> Iterator[None]:
        """Within the block every rank computes the same from the same values: what it raises, all raise."""
        yield


ALONE = Ranks()
