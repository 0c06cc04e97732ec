"""Records the state of a model before it runs, reports changes by name, and restores it.

A model's forward may do anything to itself: count, keep outputs in a list of a dictionary of an object, write to a
buffer, replace a parameter, seed a generator. What can be reached from the ``vars`` of its modules is put back, and
objects keep their identity. Each has the path of the attribute of a module in which it was found:

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

from embedl_deploy.validation.checked import checked
from embedl_deploy.verify.dictionaries import Attributes, Empty, Items
from embedl_deploy.verify.kept import ATOMS, Change, Contents, Kept, Numbers, Slots, WrittenTo, global_generators, slot
from embedl_deploy.verify.memory import Handle, Memory, place_of

#: Parts of the process, or of a graph.
_NOT_OF_THE_MODEL = (type, types.ModuleType, Enum, fx.Graph, fx.Node)
#: Packages whose objects and functions are not looked into: those of Python (logging, threading) lead anywhere, and
#: what this package hangs into a model notes what it is to find out. Some of Python's classes are for users' values.
_NOT_LOOKED_INTO = stdlib_module_names - {"argparse", "collections", "types"} | {"torch", __name__.partition(".")[0]}


_DICTIONARIES = frozenset({dict, OrderedDict})
#: Attributes of every module that hold others.
_TABLES = ("_parameters", "_buffers", "_modules")

#: Makes what is kept of an object, from its name and the object.
_Way = Callable[[str, Any], Kept]


def _ways(kind: type) -> Iterator[_Way]:
    """How objects of a class, which are not tensors, are kept, without what they refer to."""
    if issubclass(kind, dict):
        yield Items
    elif issubclass(kind, list):
        yield lambda name, value: Contents(name, value, list.clear, list.extend)
    elif issubclass(kind, set):
        yield lambda name, value: Contents(name, value, kind.clear, set.update)
    elif issubclass(kind, deque):
        yield lambda name, value: Contents(name, value, kind.clear, deque.extend)
    elif issubclass(kind, (bytearray, np.ndarray)):
        yield lambda name, value: Numbers(
            name, value.copy, partial(value.__setitem__, slice(None) if len(np.shape(value)) else ())
        )
    elif issubclass(kind, (torch.Generator, np.random.RandomState)):
        yield lambda name, value: Numbers(name, value.get_state, value.set_state)
    elif issubclass(kind, random.Random):
        yield lambda name, value: Numbers(name, value.getstate, value.setstate)
    elif issubclass(kind, np.random.Generator):
        yield lambda name, value: _state_of_bits(name, value.bit_generator)
    elif issubclass(kind, types.CellType):
        yield lambda name, value: Slots(name, value, ("cell_contents",))
    if issubclass(kind, nn.Module) or _may_be_looked_into(kind):
        if kind.__dictoffset__ and not issubclass(kind, nn.Module):
            yield lambda name, value: Items(name, slot(value, "__dict__"))
        given = [vars(base).get("__slots__", ()) for base in kind.__mro__]
        slots = [name for names in given for name in ((names,) if isinstance(names, str) else names)]
        if places := [name for name in slots if name not in ("__dict__", "__weakref__")]:
            yield lambda name, value: Slots(name, value, places)


def _state_of_bits(name: str, bits: Any) -> Kept:
    return Numbers(name, lambda: bits.state, partial(setattr, bits, "state"))


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
        random_numbers: Whether the global generators belong to it.

    Attributes:
        parameters: The memory of parameters and gradients, by place. It is large and rarely written, so nothing is
            copied here; see :class:`~embedl_deploy.verify.memory.CopiedBeforeWrites`.
    """

    def __init__(self, model: nn.Module, *, random_numbers: bool = True) -> None:
        empty = Empty()
        self._kept: list[Kept] = [*global_generators(), empty] if random_numbers else [empty]
        self._memory: dict[int, Memory] = {}
        self.parameters: dict[int, Memory] = {}
        self._places: dict[int, str] = {}
        self._seen: dict[int, Any] = {}  # what was looked at, held so that nothing else gets its id
        paths = {id(module): path for path, module in model.named_modules()}
        ways: dict[type, tuple[_Way, ...]] = {}
        # What a module owns has its name before a hook, or another object, that leads to it as well.
        waiting: deque[tuple[Any, str]] = deque((module, paths[id(module)]) for module in model.modules())
        while waiting:
            value, name = waiting.popleft()
            kind = type(value)
            if kind in ATOMS or id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            if kind in _DICTIONARIES and not value:
                empty.add(name, value)
            elif isinstance(value, torch.Tensor):
                waiting += self._look_at_tensor(name, value)
            elif not isinstance(value, _NOT_OF_THE_MODEL):
                if isinstance(value, nn.Module):
                    waiting += self._look_at_module(paths.get(id(value), name), value)
                else:
                    waiting += [(part, name) for part in _behind(value)]
                if kind not in ways:
                    ways[kind] = tuple(_ways(kind))
                for way in ways[kind]:
                    waiting += self._keep(way(name, value))
        for place, memory in self._memory.items():
            self.parameters.pop(place, None)
            memory.copy()

    def _keep(self, kept: Kept) -> Iterable[tuple[Any, str]]:
        self._kept.append(kept)
        return kept.inside

    def _look_at_module(self, path: str, module: nn.Module) -> Iterator[tuple[Any, str]]:
        attributes = vars(module)
        for table in (attributes, *(attributes[name] for name in _TABLES if name in attributes)):
            self._seen[id(table)] = table
            yield from self._keep(Attributes(path, table))

    def _look_at_tensor(self, name: str, tensor: torch.Tensor) -> Iterable[tuple[Any, str]]:
        self._places.setdefault(place_of(tensor), name)
        if bool(is_traceable_wrapper_subclass(tensor)):
            return [(part, name) for part in vars(tensor).values()]
        if tensor.is_meta and not isinstance(tensor, (FakeTensor, nn.Parameter)) and not tensor.is_inference():
            return self._keep(WrittenTo(name, tensor))
        if isinstance(tensor, FakeTensor) or tensor.is_meta or tensor.layout is not torch.strided or tensor.is_nested:
            return ()
        memory = Memory(name, tensor)
        (self.parameters if isinstance(tensor, nn.Parameter) else self._memory).setdefault(memory.place, memory)
        if tensor.is_leaf and tensor.grad is not None and tensor.grad.layout is torch.strided:
            memory = Memory(name, tensor.grad)
            self.parameters.setdefault(memory.place, memory)
        return self._keep(Handle(name, tensor))

    def changes(self) -> Iterator[Change]:
        """What is not what it was."""
        for kept in self._all():
            yield from kept.changes()

    def has_changed(self) -> bool:
        """Whether anything is not what it was."""
        return next(self.changes(), None) is not None

    def put_back(self) -> None:
        """Make everything what it was."""
        for kept in self._all():
            kept.put_back()

    def _all(self) -> Iterator[Kept]:
        yield from self._kept
        yield from self._memory.values()
        yield from self.parameters.values()

    def has(self, tensor: torch.Tensor) -> bool:
        """Whether the model referred to a tensor, to that very object."""
        return self._seen.get(id(tensor)) is tensor

    def in_order(self, names: set[str]) -> list[str]:
        """Names in the order of the modules and their attributes, new ones last."""
        order = dict.fromkeys(name for kept in self._kept if isinstance(kept, Attributes) for name in kept.names())
        return sorted(names, key=[*order, *sorted(names - order.keys())].index)

    def owner(self, tensor: torch.Tensor) -> str | None:
        """The attribute in whose memory a tensor lies, if the model had it."""
        return self._places.get(place_of(tensor))

    def apart(self, value: Any) -> Any:
        """A value in containers and memory of its own, which nothing that is put back changes."""
        return pytree.tree_map_only(torch.Tensor, self._own, value)

    def _own(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout is not torch.strided or isinstance(tensor, FakeTensor):
            return tensor
        place = tensor.untyped_storage()._cdata
        return tensor.clone() if place in self._memory or place in self.parameters else tensor


@checked
@contextmanager
def state_kept(model: nn.Module, *, random_numbers: bool = True) -> Iterator[State]:
    """Restore everything that can be reached from a model after the block, except values of parameters.

    Args:
        model: The model.
        random_numbers: Whether the global generators are put back as well.
    """
    state = State(model, random_numbers=random_numbers)
    try:
        yield state
    finally:
        state.put_back()
