"""Ranks of a process group that do one thing together: they agree, exchange values, and end together."""

import pickle
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from embedl_deploy.distributed import post as timing
from embedl_deploy.distributed.meeting import device_of_group, meeting_place, members_of
from embedl_deploy.distributed.post import Post, Store
from embedl_deploy.distributed.ranks import ALONE, Ranks
from embedl_deploy.errors import DistributedError

T = TypeVar("T")

#: Bytes up to which a value goes through the store; a larger one through a collective.
_SMALL = 1 << 14
#: What may be the matter with a store that does not answer.
_SILENT_STORE = "Its process is stopped, or that machine waits for a name server that does not answer."
#: Seconds between two looks at a collective.
_LOOK = 0.0005
#: Ranks that a message names, and characters up to which it shows what they differ in.
_LISTED, _SHORT = 4, 60


class Together(Ranks):
    """One of several ranks; made by :func:`taking_part`.

    Args:
        group: The process group.
        what: What is done, for messages.
    """

    grouped = True

    def __init__(self, group: dist.ProcessGroup, what: str) -> None:
        self._members = members_of(group, what)
        self.rank, self.size = dist.get_rank(group), len(self._members)
        self._group, self._what = group, what
        store: Any = group.get_group_store()
        self._patience: float = store.timeout.total_seconds()
        self._post = Post(lambda: meeting_place(group, self.rank), self.rank, self.size)
        self._steps = 0
        self._known: Exception | None = None  # what all ranks raise

    def check(self) -> None:
        """Raise what another rank has failed with, if one has."""
        if self._post.failures:
            self._raise_failures()
        if self._post.unreachable:
            self._raise_no_store(f"has ended: {self._post.unreachable}")
        if self._post.unanswered() > timing.SILENCE:
            self._raise_no_store(f"is silent for {timing.SILENCE:g} s", _SILENT_STORE)

    def gather(self, what: str, value: T) -> list[T]:
        """What each rank has, by rank."""
        self._steps += 1
        key = f"step/{self._steps}"
        data = pickle.dumps((what, value))
        small = len(data) <= _SMALL
        self._post.send(f"{key}/{self.rank}", b"v" + data if small else b"n" + str(len(data)).encode())
        keys = [f"{key}/{rank}" for rank in range(self.size)]
        start = time.monotonic()

        def read(store: Store) -> list[bytes] | None:
            return [store.get(each) for each in keys] if store.check(keys) else None

        def absent(store: Store) -> list[int]:
            return [rank for rank, each in enumerate(keys) if not store.check([each])]

        def enough() -> bool:
            self.check()
            return time.monotonic() - start > self._patience

        messages = self._post.ask(read, enough)
        if messages is None:
            last = time.monotonic() + timing.SILENCE
            missing = self._post.ask(absent, lambda: time.monotonic() > last)
            if missing is None:
                self._raise_no_store(f"is silent for {self._patience:g} s", _SILENT_STORE)
            self._raise_absent(what, missing)
        self._post.all_here = True
        if not all(message.startswith(b"v") for message in messages):
            messages = self._gather_large(data, [_length(message) for message in messages])
        received = [pickle.loads(message[1:]) for message in messages]
        if len({about for about, _ in received}) > 1:
            told = {rank: f"is at {about!r}" for rank, (about, _) in enumerate(received)}
            raise self._error(told, "Call the same functions on every rank, in the same order.")
        return [given for _, given in received]

    def agree(self, facts: Mapping[str, str]) -> None:
        """Refuse to go on where a fact differs from rank to rank."""
        given = self.gather("comparing", (self._what, dict(facts)))
        told: dict[int, list[str]] = {}
        for name in ("function", *facts):
            values = [what if name == "function" else theirs.get(name, "") for what, theirs in given]
            usual = max(Counter(values).items(), key=lambda entry: entry[1])[0]
            for rank, value in enumerate(values):
                if value != usual:
                    shown = f" ({value}, not {usual})" if max(map(len, (value, usual))) < _SHORT else ""
                    told.setdefault(rank, []).append(f"the {name}{shown}")
        if told:
            others = next((f"rank {rank}" for rank in range(self.size) if rank not in told), "others")
            texts = {rank: f"differs from {others} in {', '.join(entries)}" for rank, entries in told.items()}
            raise self._error(texts, "All ranks must do the same with the same model; only their data differ.")

    @contextmanager
    def alike(self) -> Iterator[None]:
        """Within the block every rank computes the same from the same values: what it raises, all raise."""
        try:
            yield
        except Exception as error:
            self._known = error
            raise

    def end(self) -> None:
        """Leave after all is done; the first rank, whose process may keep the store, last."""
        self.gather("leaving", None)
        self._post.send(f"left/{self.rank}", "1")
        if self.rank == 0:
            self._wait_for("left")

    def stop(self) -> None:
        """Give no more signs of life."""
        self._post.stop()

    def end_by(self, error: BaseException) -> NoReturn:
        """Tell the others why this rank ends, and raise that; or what another has ended by."""
        told = f"raised {type(error).__name__}: {error}"
        if not isinstance(error, Exception):  # Ctrl-C, or the process is asked to end: it does so at once
            self._post.fail(f"was ended by {type(error).__name__}")
            raise error
        known = error is self._known
        if known:
            self._post.send(f"heard/{self.rank}", "1")
        else:
            self._post.fail(told)
        self._wait_for("heard")
        if known:
            raise error
        raise self._error({self.rank: told, **self._post.failures}) from error

    def _wait_for(self, key: str) -> None:
        """Wait until all ranks that are alive have sent a message; not for long."""
        start, others = time.monotonic(), [rank for rank in range(self.size) if rank != self.rank]

        def all_there(store: Store) -> bool | None:
            failed = self._post.failures
            return all(rank in failed or store.check([f"{key}/{rank}"]) for rank in others) or None

        self._post.ask(all_there, lambda: bool(self._post.unreachable) or time.monotonic() - start > timing.SILENCE)

    def _gather_large(self, data: bytes, lengths: list[int]) -> list[bytes]:
        """All ranks' values through one collective, polled, because another rank may end meanwhile."""
        device = device_of_group(self._group)
        longest = max(lengths)
        own = torch.frombuffer(bytearray(data.ljust(longest, b"\0")), dtype=torch.uint8).to(device)
        parts = [torch.empty_like(own) for _ in lengths]
        try:
            work = dist.all_gather(parts, own, group=self._group, async_op=True)
            assert work is not None  # this process is a member
            while not work.is_completed():
                self.check()
                time.sleep(_LOOK)
            work.wait()
        except RuntimeError as error:  # of the backend: a connection has ended
            start = time.monotonic()
            while time.monotonic() - start < 2 * timing.SILENCE:
                self.check()  # which knows by whom
                time.sleep(timing.BEAT / 10)
            reason = " ".join(str(error).split())
            raise self._error({self.rank: f"cannot exchange data with the others: {reason}"}) from error
        return [b"v" + bytes(part[:length].cpu().numpy().data) for part, length in zip(parts, lengths, strict=True)]

    def _raise_failures(self) -> NoReturn:
        raise self._error(self._post.failures)

    def _raise_no_store(self, what: str, advice: str = "") -> NoReturn:
        """Of the store: rank 0 of the job keeps it, which may be no member of the group."""
        told = f"keeps the store of the group, unless torchrun does, which {what}"
        if 0 in self._members:
            raise self._error({self._members.index(0): told}, advice)
        raise self._error({}, advice, f"rank 0 of the job {told}")

    def _name(self, rank: int) -> str:
        number = self._members[rank]
        return f"rank {rank}" if number == rank else f"rank {rank} ({number} of the job)"

    def _raise_absent(self, what: str, ranks: list[int]) -> NoReturn:
        told = f"has not come to {what!r} within {self._patience:g} s, the timeout of init_process_group"
        raise self._error(dict.fromkeys(ranks, told), "See what it does, or give it more time.")

    def _error(self, told: Mapping[int, str], advice: str = "", *more_told: str) -> DistributedError:
        entries = [f"{self._name(rank)} {' '.join(what.split()).rstrip('.')}" for rank, what in sorted(told.items())]
        entries += [what.rstrip(".") for what in more_told]
        more = [f"{len(entries) - _LISTED} more ranks"] if len(entries) > _LISTED else []
        text = f"{self._what} on {self.size} ranks: {'; '.join([*entries[:_LISTED], *more])}. {advice}".rstrip()
        self._known = DistributedError(text, ranks=dict(told))
        return self._known


def _length(message: bytes) -> int:
    return int(message[1:]) if message.startswith(b"n") else len(message) - 1


class taking_part:  # noqa: N801 - used as a function
    """Within the block, this process is one of the ranks of a group that do one thing together.

    All of them leave the block at the same time: with a result, or with an error that names the rank at fault.

    Args:
        group: Whose ranks; ``None`` for this process alone.
        what: What is done: the name of a public function.

    Raises:
        DistributedError: A rank has failed, is silent, does not come, or does something else.
    """

    def __init__(self, group: dist.ProcessGroup | None, what: str) -> None:
        self._group, self._what = group, what
        self._together: Together | None = None

    def __enter__(self) -> Ranks:
        if self._group is None:
            return ALONE
        self._together = Together(self._group, self._what)
        return self._together

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        together = self._together
        if together is None:
            return
        try:
            if error is not None:
                together.end_by(error)
            try:
                together.end()
            except DistributedError as late:
                together.end_by(late)
        finally:
            together.stop()
