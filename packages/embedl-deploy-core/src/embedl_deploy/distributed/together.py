"""Ranks of a process group that do one thing together: they agree, exchange values, and end together."""

import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from embedl_deploy.distributed import post as timing
from embedl_deploy.distributed.post import Post, Store
from embedl_deploy.distributed.ranks import ALONE, Ranks
from embedl_deploy.errors import DistributedError

T = TypeVar("T")

#: Bytes up to which a value goes through the store; a larger one through a collective.
_SMALL = 1 << 14
#: Seconds between two looks at a collective.
_LOOK = 0.0005
#: Ranks that a message names, and characters up to which it shows what they differ in.
_LISTED, _SHORT = 4, 60

#: How often ranks have met in each group, by its name: names the keys of one meeting. Ranks meet in one order.
_meetings: Counter[str] = Counter()
_counting = threading.Lock()


class Together(Ranks):
    """One of several ranks; made by :func:`taking_part`.

    Args:
        group: The process group.
        what: What is done, for messages.
    """

    grouped = True

    def __init__(self, group: dist.ProcessGroup, what: str) -> None:
        from torch.distributed.distributed_c10d import PrefixStore  # here, because some builds of torch have none

        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._group, self._what = group, what
        store: Any = group.get_group_store()
        self._patience: float = store.timeout.total_seconds()
        with _counting:
            _meetings[group.group_name] += 1
            number = _meetings[group.group_name]
        own: Any = PrefixStore(f"embedl_deploy/{number}", store.clone())
        self._post = Post(own, self.rank, self.size)
        self._steps = 0
        self._known: Exception | None = None  # what all ranks raise

    def check(self) -> None:
        """Raise what another rank has failed with, if one has."""
        if self._post.failures:
            self._raise_failures()
        if self._post.unreachable:
            told = f"keeps the store of the group, unless torchrun does, and has ended: {self._post.unreachable}"
            raise self._error({0: told})
        if self._post.unanswered() > timing.SILENCE:
            told = f"keeps the store of the group, unless torchrun does, which is silent for {timing.SILENCE:g} s"
            raise self._error({0: told})

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
            start = time.monotonic()
            missing = self._post.ask(absent, enough) or []
            self._raise_absent(what, missing)
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
        device = _device_of(self._group)
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
            while time.monotonic() - start < timing.SILENCE + 2 * timing.BEAT:
                self.check()  # which knows by whom
                time.sleep(timing.BEAT / 10)
            reason = " ".join(str(error).split())
            raise self._error({self.rank: f"cannot exchange data with the others: {reason}"}) from error
        return [b"v" + bytes(part[:length].cpu().numpy().data) for part, length in zip(parts, lengths, strict=True)]

    def _raise_failures(self) -> NoReturn:
        raise self._error(self._post.failures)

    def _raise_absent(self, what: str, ranks: list[int]) -> NoReturn:
        told = f"has not come to {what!r} within {self._patience:g} s, the timeout of init_process_group"
        raise self._error(dict.fromkeys(ranks or [self.rank], told), "See what it does, or give it more time.")

    def _error(self, told: Mapping[int, str], advice: str = "") -> DistributedError:
        entries = [f"rank {rank} {' '.join(what.split()).rstrip('.')}" for rank, what in sorted(told.items())]
        more = [f"{len(entries) - _LISTED} more ranks"] if len(entries) > _LISTED else []
        text = f"{self._what} on {self.size} ranks: {'; '.join([*entries[:_LISTED], *more])}. {advice}".rstrip()
        self._known = DistributedError(text, ranks=dict(told))
        return self._known


def _length(message: bytes) -> int:
    return int(message[1:]) if message.startswith(b"n") else len(message) - 1


def _device_of(group: dist.ProcessGroup) -> torch.device:
    """Where the tensors of a group's collectives have to be."""
    kinds = [entry.partition(":")[0] for entry in str(dist.get_backend_config(group)).split(",")]
    if "cpu" in kinds:
        return torch.device("cpu")
    return torch.device(kinds[0], torch.get_device_module(kinds[0]).current_device())


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
