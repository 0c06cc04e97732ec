"""Records and restores containers, slots and random number generators, by name."""

import pickle
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

#: What holds nothing that changes.
ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None), range, torch.dtype, torch.device, torch.Size})
#: In place of a value where there is none.
NOTHING = object()


class Change(NamedTuple):
    """What is not what it was.

    Attributes:
        name: Path of the attribute of a module that it is, or belongs to.
        before: What was there, ``NOTHING`` if nothing was.
        now: What is there now.
        write: Puts something else there, ``before`` to take the change back.
    """

    name: str
    before: Any
    now: Any
    write: Callable[[Any], Any]


class Kept(ABC):
    """Something as it was, and in ``inside`` what it refers to, each with its name.

    Args:
        name: Path of the attribute of a module that it is, or belongs to.
    """

    inside: Iterable[tuple[Any, str]] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    def changes(self) -> Iterator[Change]:
        """What of it is something else now; a new object that equals the old one is none."""
        if self._differs():
            yield Change(self.name, self._before(), self._now(), lambda _: self._restore())

    def put_back(self) -> None:
        """Make it what it was, the very objects."""
        if self._differs():
            self._restore()

    def _before(self) -> Any:
        return NOTHING

    def _now(self) -> Any:
        return NOTHING

    @abstractmethod
    def _differs(self) -> bool: ...

    @abstractmethod
    def _restore(self) -> None: ...


def _are_same(now: Iterable[Any], then: Iterable[Any]) -> bool:
    return [*map(id, now)] == [*map(id, then)]


def is_equal(now: Any, then: Any, above: tuple[int, ...] = ()) -> bool:
    """Whether it is the same to a model's code, though it may be another object."""
    if now is then:
        return True
    if type(now) is not type(then) or id(now) in above:
        return False
    if type(now) in ATOMS:
        return bool(now == then) or (now != now and then != then)  # NaN
    above = (*above, id(now))
    if isinstance(now, dict):
        now, then = [*now.keys(), *now.values()], [*then.keys(), *then.values()]
    elif isinstance(now, (set, frozenset)):
        return _are_same(now, then) or ({*map(type, (*now, *then))} <= ATOMS and now == then)
    elif not isinstance(now, (list, tuple)):
        return False
    return len(now) == len(then) and all(is_equal(a, b, above) for a, b in zip(now, then, strict=True))


class Contents(Kept):
    """A container, emptied and filled again by methods of Python's own class, whatever a subclass makes of them."""

    def __init__(
        self, name: str, container: Any, empty: Callable[[Any], None], fill: Callable[[Any, Any], None]
    ) -> None:
        super().__init__(name)
        self._container, self._empty, self._fill = container, empty, fill
        self._values = list(container)
        self.inside = [(value, name) for value in self._values]

    def _now(self) -> list[Any]:
        return list(self._container)

    def changes(self) -> Iterator[Change]:
        """See :class:`Kept`."""
        if self._differs() and not is_equal(self._now(), self._values):
            yield from super().changes()

    def _differs(self) -> bool:
        return not _are_same(self._container, self._values)

    def _restore(self) -> None:
        self._empty(self._container)
        self._fill(self._container, self._values)


class Slots(Kept):
    """Attributes that have a fixed place; a variable that functions enclose is one."""

    def __init__(self, name: str, owner: Any, names: Iterable[str]) -> None:
        super().__init__(name)
        self._owner, self._names = owner, list(names)
        self._values = self._read()
        self.inside = [(value, name) for value in self._values if value is not NOTHING]

    def _read(self) -> list[Any]:
        return [slot(self._owner, name) for name in self._names]

    def changes(self) -> Iterator[Change]:
        """See :class:`Kept`."""
        for name, now, before in zip(self._names, self._read(), self._values, strict=True):
            if not is_equal(now, before):
                yield Change(self.name, before, now, lambda value, name=name: self._write(name, value))  # type: ignore[misc]  # of the loop

    def _differs(self) -> bool:
        return not _are_same(self._read(), self._values)

    def _restore(self) -> None:
        for name, now, before in zip(self._names, self._read(), self._values, strict=True):
            if now is not before:
                self._write(name, before)

    def _write(self, name: str, value: Any) -> None:
        if value is NOTHING:
            object.__delattr__(self._owner, name)
        else:
            object.__setattr__(self._owner, name, value)  # a frozen dataclass may have slots, too


def slot(owner: Any, name: str) -> Any:
    """The value at a fixed place, or ``NOTHING``, whatever the class makes of the access to attributes."""
    try:
        return object.__getattribute__(owner, name)
    except (AttributeError, ValueError):  # the second from a variable that has no value yet
        return NOTHING


class Numbers(Kept):
    """The state of a generator, or the numbers of an array."""

    def __init__(self, name: str, read: Callable[[], Any], write: Callable[[Any], Any]) -> None:
        super().__init__(name)
        self._read, self._write = read, write
        self._values = read()

    def _differs(self) -> bool:
        return _comparable(self._read()) != _comparable(self._values)

    def _restore(self) -> None:
        self._write(self._values)


class WrittenTo(Kept):
    """A tensor without values, as on the meta device: by torch's count of writes, only that there was one is known."""

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        super().__init__(name)
        self._tensor, self._count = tensor, tensor._version

    def _differs(self) -> bool:
        return self._tensor._version != self._count

    def _before(self) -> Any:
        return self._tensor

    def _now(self) -> Any:
        return self._tensor

    def _restore(self) -> None:
        self._count = self._tensor._version


def _comparable(numbers: Any) -> bytes:
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.numpy()
    return numbers.tobytes() if isinstance(numbers, np.ndarray) else pickle.dumps(numbers)


def global_generators() -> list[Kept]:
    """The state of the generators that torch, Python and NumPy have one of, torch one for each GPU that is in use."""
    return [
        Numbers("", torch.random.get_rng_state, torch.random.set_rng_state),
        *(Numbers("", generator.get_state, generator.set_state) for generator in torch.cuda.default_generators),
        Numbers("", random.getstate, random.setstate),
        Numbers("", np.random.get_state, np.random.set_state),
    ]
