"""Things as they were: containers, attributes, generators, and which memory a tensor refers to."""

import random
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch


class Kept(ABC):
    """Something as it was, and in ``inside`` what it refers to."""

    inside: Iterable[Any] = ()

    def has_changed(self) -> bool:
        """Whether it is something else now."""
        return self._differs()

    def put_back(self) -> None:
        """Make it what it was."""
        if self._differs():
            self._restore()

    @abstractmethod
    def _differs(self) -> bool: ...

    @abstractmethod
    def _restore(self) -> None: ...


def _are_same(now: Iterable[Any], then: Iterable[Any]) -> bool:
    return [*map(id, now)] == [*map(id, then)]


class Contents(Kept):
    """A container, emptied and filled again by methods of Python's own class, whatever a subclass makes of them."""

    def __init__(self, container: Any, empty: Callable[[Any], None], fill: Callable[[Any, Any], None]) -> None:
        self._container, self._empty, self._fill = container, empty, fill
        self.inside = list(container)

    def _differs(self) -> bool:
        return not _are_same(self._container, self.inside)

    def _restore(self) -> None:
        self._empty(self._container)
        self._fill(self._container, self.inside)


class Items(Kept):
    """A dictionary. The attributes of an object are one."""

    def __init__(self, items: dict[Any, Any]) -> None:
        self._items = items
        self._kind: Any = OrderedDict if isinstance(items, OrderedDict) else dict
        self._keys, self._values = list(self._kind.keys(items)), list(self._kind.values(items))
        self.inside = [*self._keys, *self._values]

    def _differs(self) -> bool:
        now = (*self._kind.keys(self._items), *self._kind.values(self._items))
        return not _are_same(now, self.inside)

    def _restore(self) -> None:
        self._kind.clear(self._items)
        for key, value in zip(self._keys, self._values, strict=True):
            self._kind.__setitem__(self._items, key, value)


_EMPTY = object()


class Slots(Kept):
    """Attributes that have a fixed place; a variable that functions enclose is one."""

    def __init__(self, owner: Any, names: Iterable[str]) -> None:
        self._owner, self._names = owner, list(names)
        self._before = self._now()
        self.inside = [value for value in self._before if value is not _EMPTY]

    def _now(self) -> list[Any]:
        return [slot(self._owner, name) for name in self._names]

    def _differs(self) -> bool:
        return not _are_same(self._now(), self._before)

    def _restore(self) -> None:
        for name, now, before in zip(self._names, self._now(), self._before, strict=True):
            if now is before:
                continue
            if before is _EMPTY:
                object.__delattr__(self._owner, name)
            else:
                object.__setattr__(self._owner, name, before)  # a frozen dataclass may have slots, too


def slot(owner: Any, name: str) -> Any:
    """The value at a fixed place, or ``_EMPTY``, whatever the class makes of the access to attributes."""
    try:
        return object.__getattribute__(owner, name)
    except (AttributeError, ValueError):  # the second from a variable that has no value yet
        return _EMPTY


class Numbers(Kept):
    """The state of a generator, or the numbers of an array."""

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], Any]) -> None:
        self._read, self._write = read, write
        self._before = read()

    def _differs(self) -> bool:
        return bool(_comparable(self._read()) != _comparable(self._before))

    def _restore(self) -> None:
        self._write(self._before)


def _comparable(numbers: Any) -> Any:
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.numpy()
    return numbers.tobytes() if isinstance(numbers, np.ndarray) else repr(numbers)


class Handle(Kept):
    """Which memory a tensor refers to, in which shape, and what autograd knows of it; not what is in the memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor, self._alias = tensor, tensor.detach()
        self._requires_grad = tensor.requires_grad
        self._grad = tensor.grad if tensor.is_leaf else None
        self.inside = (vars(tensor),)

    def _moved(self) -> bool:
        now, then = self._tensor, self._alias
        place = (now.untyped_storage()._cdata, now.storage_offset(), now.shape, now.stride(), now.dtype)
        return place != (then.untyped_storage()._cdata, then.storage_offset(), then.shape, then.stride(), then.dtype)

    def _has_other_grad(self) -> bool:
        return self._tensor.is_leaf and self._tensor.grad is not self._grad

    def _differs(self) -> bool:
        return self._moved() or self._has_other_grad() or bool(self._tensor.requires_grad) != self._requires_grad

    def _restore(self) -> None:
        if self._moved():
            self._tensor.data = self._alias
        if self._tensor.is_leaf and self._tensor.requires_grad != self._requires_grad:
            self._tensor.requires_grad_(self._requires_grad)
        if self._has_other_grad():
            self._tensor.grad = self._grad


def global_generators() -> list[Kept]:
    """The state of the generators that torch, Python and NumPy have one of, torch one for each GPU that is in use."""
    return [
        Numbers(torch.random.get_rng_state, torch.random.set_rng_state),
        *(Numbers(generator.get_state, generator.set_state) for generator in torch.cuda.default_generators),
        Numbers(random.getstate, random.setstate),
        Numbers(np.random.get_state, np.random.set_state),
    ]
