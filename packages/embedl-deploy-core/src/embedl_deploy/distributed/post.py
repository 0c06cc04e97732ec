"""A thread that carries short messages between ranks, and notices which of them has failed or is silent.

Waiting inside a collective of gloo or NCCL ends when the group's timeout is over, half an hour, and the error names an
address. So ranks meet through the key-value store that every process group has, and a collective only begins when all
ranks are known to have come. The thread alone uses the store: one that does not answer blocks the thread, and not the
work.

Clocks of machines are not compared. A rank is silent when its counter has not changed while whoever reads it gave a
number of signs of life itself: so nobody is where all are stopped and go on together, or wait for the store.

The store that torch has answers nobody while it looks up the name of a process that connects to it: for many seconds
if name servers do not answer. So each process connects once for each group, in the thread, and a store that does not
answer counts as silent only when all have connected.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

#: Seconds between two signs of life, and after how many seconds without one a rank counts as gone.
BEAT, SILENCE = 1.0, 15.0
#: Seconds between two tries of a question: at first, and at most.
_SOON, _LATER = 0.001, 0.02

#: What may be the matter with a silent rank.
_WHY = "its process was killed, as the system does when memory runs out, or is stopped"

T = TypeVar("T")


class Store(Protocol):
    """The key-value store of a process group, as far as it is used here."""

    def set(self, key: str, value: bytes | str) -> None:
        """Keep a value."""

    def get(self, key: str) -> bytes:
        """A value that is there."""

    def check(self, keys: list[str]) -> bool:
        """Whether all keys are there."""

    def add(self, key: str, amount: int) -> int:
        """Count, and give the sum."""


class Post:
    """Messages between ranks.

    Args:
        connect: Gives a connection of its own, with a prefix of its own; called in the thread.
        rank: Which rank this is.
        size: How many there are.

    Attributes:
        failures: By rank, what it said before it ended, or that it is silent.
        unreachable: What the store raised, if it can no longer be used.
        all_here: Whether all ranks are known to have connected.
    """

    def __init__(self, connect: Callable[[], Store], rank: int, size: int) -> None:
        self.failures: dict[int, str] = {}
        self.unreachable = ""
        self.all_here = False
        self._connect, self._rank, self._size = connect, rank, size
        self._store: Store
        self._changed = threading.Condition()
        self._outbox: list[Callable[[], None]] = []
        self._question: Callable[[Store], Any] | None = None
        self._answer: Any = None  # what the question gives
        self._stopping = False
        self._answered = self._looked = self._looking = time.monotonic()
        self._beats, self._next_beat, self._known_failures = 0, 0.0, 0
        self._heard: dict[int, tuple[bytes, int]] = {}  # the counter of each, and own signs of life when it changed
        self._thread = threading.Thread(target=self._work, name="embedl-deploy ranks", daemon=True)
        self._thread.start()

    def send(self, key: str, message: bytes | str) -> None:
        """Put a message into the store, soon."""
        self._later(lambda: self._store.set(key, message))

    def fail(self, what: str) -> None:
        """Tell the others, soon, that this rank has failed."""
        self._later(lambda: self._tell_failure(self._rank, what))

    def ask(self, question: Callable[[Store], T | None], enough: Callable[[], bool]) -> T | None:
        """Put a question to the store until it has an answer.

        Args:
            question: Called in the thread, now and then; ``None`` is no answer yet.
            enough: Called here, now and then; ends the waiting, or raises.

        Returns:
            ``None`` if there was enough of waiting.
        """
        with self._changed:
            self._question, self._answer = question, None
            self._changed.notify_all()
            try:
                while self._answer is None and not enough():
                    self._changed.wait(0.05)
                return self._answer
            finally:
                self._question = None

    def unanswered(self) -> float:
        """Seconds since the store last answered; asked again and again, else it is this process that was away.

        0 until all ranks have connected, which may keep the store busy.
        """
        now = time.monotonic()
        if not self.all_here:
            self._looking = now
        if now - self._looked > 2 * BEAT:
            self._looking = now
        self._looked = now
        return now - max(self._answered, self._looking)

    def stop(self) -> None:
        """Send what is left, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(BEAT)

    def _later(self, step: Callable[[], None]) -> None:
        with self._changed:
            self._outbox.append(step)
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            self._store = self._connect()
        except (RuntimeError, OSError) as error:  # of torch.distributed: nobody keeps the store any more
            self._lose(error)
            return
        pause = _SOON
        while True:
            with self._changed:
                asked = self._question is not None and self._answer is None
                pause = min(2 * pause, _LATER) if asked else _SOON
                if not self._outbox and not self._stopping:
                    self._changed.wait(pause if asked else max(0.0, self._next_beat - time.monotonic()))
                steps, self._outbox = self._outbox, []
                question, stopping = self._question, self._stopping
            try:
                for step in steps:
                    step()
                if stopping:
                    return
                answer = None if question is None else question(self._store)
                if time.monotonic() >= self._next_beat:
                    self._beat()
                    self._next_beat = time.monotonic() + BEAT
            except (RuntimeError, OSError) as error:  # of torch.distributed: no connection, or no answer in time
                self._lose(error)
                return
            with self._changed:
                self._answered = time.monotonic()
                if answer is not None and question is self._question:
                    self._answer = answer
                    self._changed.notify_all()

    def _lose(self, error: Exception) -> None:
        """Note why the store can no longer be used."""
        with self._changed:
            self.unreachable = " ".join(str(error).split()) or type(error).__name__
            self._changed.notify_all()

    def _beat(self) -> None:
        """Give a sign of life, and look for those of the others."""
        self._beats += 1
        self._store.set(f"beat/{self._rank}", str(self._beats))
        if self._store.add("failures", 0) > self._known_failures:
            self._learn_of_failures()
        self.all_here = self.all_here or len(self._heard) >= self._size - 1
        for rank in range(self._size):
            key = f"beat/{rank}"
            if rank == self._rank or (rank not in self._heard and not self._store.check([key])):
                continue
            count = self._store.get(key)
            before, when = self._heard.get(rank, (b"", 0))
            if count != before:
                self._heard[rank] = count, self._beats
            elif (
                (self._beats - when) * BEAT > SILENCE
                and rank not in self.failures
                and not self._store.check([f"left/{rank}"])
            ):
                self._tell_failure(rank, f"has given no sign of life for {SILENCE:g} s: {_WHY}")

    def _tell_failure(self, rank: int, what: str) -> None:
        self._store.set(f"failed/{rank}", what)
        self._store.add("failures", 1)
        self._learn_of_failures()

    def _learn_of_failures(self) -> None:
        self._known_failures = self._store.add("failures", 0)
        found = [rank for rank in range(self._size) if self._store.check([f"failed/{rank}"])]
        told = {rank: self._store.get(f"failed/{rank}").decode() for rank in found}
        self._store.set(f"heard/{self._rank}", "1")
        with self._changed:
            self.failures = told
            self._changed.notify_all()
