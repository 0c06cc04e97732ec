"""What of a model may change while it runs: noted before, and put back.

A model's forward may do anything to itself: count, keep outputs in a list of a dictionary of an object, write into a
buffer, replace a parameter, seed a generator. What can be reached from the ``vars`` of its modules is put back, and
objects keep their identity:

=====================================================  ===========================================================
reached                                                put back
=====================================================  ===========================================================
modules, objects with ``__dict__`` or ``__slots__``    their attributes
lists, dictionaries, sets, deques, arrays              their contents and order
tensors                                                values, memory, shape, ``requires_grad``, which ``grad``
functions and methods, hooks among them                what they enclose, their defaults, their ``self``
generators of torch, Python and NumPy                  their state
=====================================================  ===========================================================

The global generators of torch, Python and NumPy are put back as well. Classes, modules of Python, global variables,
iterators and whatever a library keeps in C are not looked into.
"""

import random
import types
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import partial
from sys import stdlib_module_names
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from embedl_deploy.verify.memory import Memory


class _Kept(ABC):
    """Something as it was, and in ``inside`` what it refers to."""

    inside: Iterable[Any] = ()

    @abstractmethod
    def has_changed(self) -> bool:
        """Whether it is something else now."""

    @abstractmethod
    def put_back(self) -> None:
        """Make it what it was, if it has changed."""


def _are_same(now: Iterable[Any], then: Iterable[Any]) -> bool:
    return [*map(id, now)] == [*map(id, then)]


class _Contents(_Kept):
    """A container, emptied and filled again by methods of Python's own class, whatever a subclass makes of them."""

    def __init__(self, container: Any, empty: Callable[[Any], None], fill: Callable[[Any, Any], None]) -> None:
        self._container, self._empty, self._fill = container, empty, fill
        self.inside = list(container)

    def has_changed(self) -> bool:
        return not _are_same(self._container, self.inside)

    def put_back(self) -> None:
        if self.has_changed():
            self._empty(self._container)
            self._fill(self._container, self.inside)


class _Items(_Kept):
    """A dictionary. The attributes of an object are one."""

    def __init__(self, items: dict[Any, Any]) -> None:
        self._items = items
        self._kind: Any = OrderedDict if isinstance(items, OrderedDict) else dict
        self._keys, self._values = list(self._kind.keys(items)), list(self._kind.values(items))
        self.inside = [*self._keys, *self._values]

    def has_changed(self) -> bool:
        now = (*self._kind.keys(self._items), *self._kind.values(self._items))
        return not _are_same(now, self.inside)

    def put_back(self) -> None:
        if self.has_changed():
            self._kind.clear(self._items)
            for key, value in zip(self._keys, self._values, strict=True):
                self._kind.__setitem__(self._items, key, value)


_EMPTY = object()


class _Slots(_Kept):
    """Attributes that have a fixed place; a variable that functions enclose is one."""

    def __init__(self, owner: Any, names: Iterable[str]) -> None:
        self._owner, self._names = owner, list(names)
        self._before = self._now()
        self.inside = [value for value in self._before if value is not _EMPTY]

    def _now(self) -> list[Any]:
        return [_slot(self._owner, name) for name in self._names]

    def has_changed(self) -> bool:
        return not _are_same(self._now(), self._before)

    def put_back(self) -> None:
        for name, now, before in zip(self._names, self._now(), self._before, strict=True):
            if now is before:
                continue
            if before is _EMPTY:
                object.__delattr__(self._owner, name)
            else:
                object.__setattr__(self._owner, name, before)  # a frozen dataclass may have slots, too


def _slot(owner: Any, name: str) -> Any:
    try:
        return object.__getattribute__(owner, name)
    except (AttributeError, ValueError):  # the second from a variable that has no value yet
        return _EMPTY


class _Numbers(_Kept):
    """The state of a generator, or the numbers of an array."""

    def __init__(self, read: Callable[[], Any], write: Callable[[Any], Any]) -> None:
        self._read, self._write = read, write
        self._before = read()

    def has_changed(self) -> bool:
        return _comparable(self._read()) != _comparable(self._before)

    def put_back(self) -> None:
        if self.has_changed():
            self._write(self._before)


def _comparable(numbers: Any) -> Any:
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.numpy()
    return numbers.tobytes() if isinstance(numbers, np.ndarray) else repr(numbers)


class _Handle(_Kept):
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

    def has_changed(self) -> bool:
        return self._moved() or self._tensor.requires_grad != self._requires_grad or self._has_other_grad()

    def put_back(self) -> None:
        if self._moved():
            self._tensor.data = self._alias
        if self._tensor.is_leaf and self._tensor.requires_grad != self._requires_grad:
            self._tensor.requires_grad_(self._requires_grad)
        if self._has_other_grad():
            self._tensor.grad = self._grad


def _global_generators() -> list[_Kept]:
    return [
        _Numbers(torch.random.get_rng_state, torch.random.set_rng_state),
        _Numbers(random.getstate, random.setstate),
        _Numbers(np.random.get_state, np.random.set_state),
    ]


#: What holds nothing that changes.
_ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None), range, torch.dtype, torch.device, torch.Size})
#: Parts of the process, or of a graph.
_NOT_OF_THE_MODEL = (type, types.ModuleType, Enum, fx.Graph, fx.Node)
#: Packages whose objects and functions are not looked into: those of Python (logging, threading) lead anywhere, and what
#: this package hangs into a model notes what it is to find out. Some of Python's classes are for users to put things in.
_NOT_LOOKED_INTO = stdlib_module_names - {"argparse", "collections", "types"} | {"torch", __name__.partition(".")[0]}


def _kept(value: Any) -> Iterator[_Kept]:
    """What is to be kept of an object that is no tensor, without what it refers to."""
    if isinstance(value, dict):
        yield _Items(value)
    elif isinstance(value, list):
        yield _Contents(value, list.clear, list.extend)
    elif isinstance(value, (set, deque)):
        yield _Contents(value, type(value).clear, set.update if isinstance(value, set) else deque.extend)
    elif isinstance(value, (bytearray, np.ndarray)):
        yield _Numbers(value.copy, partial(value.__setitem__, slice(None) if len(np.shape(value)) else ()))
    elif isinstance(value, torch.Generator):
        yield _Numbers(value.get_state, value.set_state)
    elif isinstance(value, random.Random):
        yield _Numbers(value.getstate, value.setstate)
    elif isinstance(value, np.random.RandomState):
        yield _Numbers(value.get_state, value.set_state)
    elif isinstance(value, np.random.Generator):
        bits = value.bit_generator
        yield _Numbers(lambda: bits.state, partial(setattr, bits, "state"))
    if isinstance(value, nn.Module) or _may_be_looked_into(type(value)):
        attributes = _slot(value, "__dict__")
        if type(attributes) is dict:
            yield _Items(attributes)
        slots = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
        names = [name for given in slots for name in ((given,) if isinstance(given, str) else given)]
        if names:
            yield _Slots(value, (name for name in names if name not in ("__dict__", "__weakref__")))


def _may_be_looked_into(made: Any) -> bool:
    """Whether a class or function is by somebody whose objects a model owns."""
    return str(made.__module__).partition(".")[0] not in _NOT_LOOKED_INTO


def _behind(value: Any) -> Iterable[Any]:
    """What an object refers to that cannot be replaced in it."""
    if isinstance(value, (tuple, frozenset)):
        return value
    if isinstance(value, types.MethodType):
        return (value.__self__, value.__func__)
    if isinstance(value, partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, types.FunctionType) and _may_be_looked_into(value):
        return (value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__)
    return ()


class State:
    """A model's state at one time.

    Args:
        model: The model.

    Attributes:
        parameters: The memory of parameters and gradients, by place. It is large and seldom written, so nothing is
            copied here; see :class:`~embedl_deploy.verify.memory.CopiedBeforeWrites`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._kept: list[_Kept] = _global_generators()
        self._memory: dict[int, Memory] = {}
        self.parameters: dict[int, Memory] = {}
        seen: dict[int, Any] = {}  # what was looked at, held so that nothing else gets its id
        waiting: list[Any] = [model]
        while waiting:
            value = waiting.pop()
            if type(value) in _ATOMS or id(value) in seen:
                continue
            seen[id(value)] = value
            if isinstance(value, torch.Tensor):
                waiting += self._look_at_tensor(value)
            elif isinstance(value, types.CellType):
                waiting += self._keep(_Slots(value, ("cell_contents",)))
            elif not isinstance(value, _NOT_OF_THE_MODEL):
                waiting += _behind(value)
                for kept in _kept(value):
                    waiting += self._keep(kept)
        for place, memory in self._memory.items():
            self.parameters.pop(place, None)
            memory.copy()

    def _keep(self, kept: _Kept) -> Iterable[Any]:
        self._kept.append(kept)
        return kept.inside

    def _look_at_tensor(self, tensor: torch.Tensor) -> Iterable[Any]:
        if is_traceable_wrapper_subclass(tensor):
            return vars(tensor).values()
        if isinstance(tensor, FakeTensor) or tensor.is_meta or tensor.layout is not torch.strided or tensor.is_nested:
            return ()
        memory = Memory(tensor)
        (self.parameters if isinstance(tensor, nn.Parameter) else self._memory).setdefault(memory.place, memory)
        if tensor.is_leaf and tensor.grad is not None and tensor.grad.layout is torch.strided:
            memory = Memory(tensor.grad)
            self.parameters.setdefault(memory.place, memory)
        return self._keep(_Handle(tensor))

    def has_changed(self) -> bool:
        """Whether anything is not what it was."""
        memory = (*self._memory.values(), *self.parameters.values())
        return any(kept.has_changed() for kept in (*self._kept, *memory))

    def put_back(self) -> None:
        """Make everything what it was."""
        for kept in (*self._kept, *self._memory.values(), *self.parameters.values()):
            kept.put_back()

    def apart(self, value: Any) -> Any:
        """A value in containers and memory of its own, which nothing that is put back changes."""
        return pytree.tree_map_only(torch.Tensor, self._own, value)

    def _own(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout is not torch.strided or isinstance(tensor, FakeTensor):
            return tensor
        place = tensor.untyped_storage()._cdata
        return tensor.clone() if place in self._memory or place in self.parameters else tensor


@contextmanager
def state_kept(model: nn.Module) -> Iterator[State]:
    """After the block, everything that can be reached from a model is what it was, but for values of parameters."""
    state = State(model)
    try:
        yield state
    finally:
        state.put_back()
