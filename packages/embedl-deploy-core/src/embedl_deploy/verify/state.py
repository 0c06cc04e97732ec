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
from collections import deque
from collections.abc import Iterable, Iterator
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
from embedl_deploy.verify.kept import Contents, Handle, Items, Kept, Numbers, Slots, global_generators, slot
from embedl_deploy.verify.memory import Memory

#: What holds nothing that changes.
_ATOMS = frozenset({str, bytes, int, float, complex, bool, type(None), range, torch.dtype, torch.device, torch.Size})
#: Parts of the process, or of a graph.
_NOT_OF_THE_MODEL = (type, types.ModuleType, Enum, fx.Graph, fx.Node)
#: Packages whose objects and functions are not looked into: those of Python (logging, threading) lead anywhere, and
#: what this package hangs into a model notes what it is to find out. Some of Python's classes are for users' values.
_NOT_LOOKED_INTO = stdlib_module_names - {"argparse", "collections", "types"} | {"torch", __name__.partition(".")[0]}


def _kept(value: Any) -> Iterator[Kept]:
    """What is to be kept of an object that is no tensor, without what it refers to."""
    if isinstance(value, dict):
        yield Items(value)
    elif isinstance(value, list):
        yield Contents(value, list.clear, list.extend)
    elif isinstance(value, (set, deque)):
        yield Contents(value, type(value).clear, set.update if isinstance(value, set) else deque.extend)
    elif isinstance(value, (bytearray, np.ndarray)):
        yield Numbers(value.copy, partial(value.__setitem__, slice(None) if len(np.shape(value)) else ()))
    elif isinstance(value, torch.Generator):
        yield Numbers(value.get_state, value.set_state)
    elif isinstance(value, random.Random):
        yield Numbers(value.getstate, value.setstate)
    elif isinstance(value, np.random.RandomState):
        yield Numbers(value.get_state, value.set_state)
    elif isinstance(value, np.random.Generator):
        bits = value.bit_generator
        yield Numbers(lambda: bits.state, partial(setattr, bits, "state"))
    if isinstance(value, nn.Module) or _may_be_looked_into(type(value)):
        attributes = slot(value, "__dict__")
        if type(attributes) is dict:
            yield Items(attributes)
        slots = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
        names = [name for given in slots for name in ((given,) if isinstance(given, str) else given)]
        if names:
            yield Slots(value, (name for name in names if name not in ("__dict__", "__weakref__")))


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
        parameters: The memory of parameters and gradients, by place. It is large and seldom written, so nothing is
            copied here; see :class:`~embedl_deploy.verify.memory.CopiedBeforeWrites`.
    """

    def __init__(self, model: nn.Module, *, random_numbers: bool = True) -> None:
        self._kept: list[Kept] = global_generators() if random_numbers else []
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
                waiting += self._keep(Slots(value, ("cell_contents",)))
            elif not isinstance(value, _NOT_OF_THE_MODEL):
                waiting += _behind(value)
                for kept in _kept(value):
                    waiting += self._keep(kept)
        for place, memory in self._memory.items():
            self.parameters.pop(place, None)
            memory.copy()

    def _keep(self, kept: Kept) -> Iterable[Any]:
        self._kept.append(kept)
        return kept.inside

    def _look_at_tensor(self, tensor: torch.Tensor) -> Iterable[Any]:
        if bool(is_traceable_wrapper_subclass(tensor)):
            return vars(tensor).values()
        if isinstance(tensor, FakeTensor) or tensor.is_meta or tensor.layout is not torch.strided or tensor.is_nested:
            return ()
        memory = Memory(tensor)
        (self.parameters if isinstance(tensor, nn.Parameter) else self._memory).setdefault(memory.place, memory)
        if tensor.is_leaf and tensor.grad is not None and tensor.grad.layout is torch.strided:
            memory = Memory(tensor.grad)
            self.parameters.setdefault(memory.place, memory)
        return self._keep(Handle(tensor))

    def has_changed(self) -> bool:
        """Whether anything is not what it was."""
        return any(kept.has_changed() for kept in self._all())

    def put_back(self) -> None:
        """Make everything what it was."""
        for kept in self._all():
            kept.put_back()

    def _all(self) -> Iterator[Kept | Memory]:
        yield from self._kept
        yield from self._memory.values()
        yield from self.parameters.values()

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
    """After the block, everything that can be reached from a model is what it was, but for values of parameters.

    Args:
        model: The model.
        random_numbers: Whether the global generators are put back as well.
    """
    state = State(model, random_numbers=random_numbers)
    try:
        yield state
    finally:
        state.put_back()
