"""Records and restores tensors: the memory that each refers to, copied before it is written."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from embedl_deploy.verify.kept import Change, Kept


class Memory(Kept):
    """The memory that a tensor, or several, refer to.

    Args:
        name: Path of the attribute of a module that one of them is, or belongs to.
        tensor: That one.

    Attributes:
        place: What tells this memory from other memory while both exist.
    """

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        super().__init__(name)
        self._tensor = tensor
        self._storage = tensor.untyped_storage()
        self._size = self._storage.nbytes()
        self._copy: torch.UntypedStorage | None = None
        self.place = place_of(tensor)

    def copy(self) -> None:
        """Take a copy, unless there is one."""
        if self._copy is None:
            self._copy = self._storage.clone()  # type: ignore[no-untyped-call]  # torch's has no types

    def _now(self) -> torch.Tensor:
        return self._tensor

    _before = _now

    def _differs(self) -> bool:
        """Whether it holds other bytes than the copy."""
        if self._copy is None:
            return False
        return self._storage.nbytes() != self._size or not torch.equal(_bytes(self._storage), _bytes(self._copy))

    def _restore(self) -> None:
        if self._copy is not None:
            if self._storage.nbytes() != self._size:
                self._storage.resize_(self._size)
            self._storage.copy_(self._copy)


def place_of(tensor: torch.Tensor) -> int:
    """What tensors with common memory have in common."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except NotImplementedError:  # a sparse tensor has none
        return id(tensor)


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


class Handle(Kept):
    """Which memory a tensor refers to, in which shape, and what autograd knows of it; not what is in the memory."""

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        super().__init__(name)
        self._tensor, self._alias, self._version = tensor, tensor.detach(), _version(tensor)
        self._requires_grad = tensor.requires_grad
        self._grad = tensor.grad if tensor.is_leaf else None
        self.inside = ((vars(tensor), name),)

    def changes(self) -> Iterator[Change]:
        """See :class:`Kept`. A tensor that is written to counts even if it holds the same values."""
        if self._differs() or _version(self._tensor) != self._version:
            yield Change(self.name, self._tensor, self._tensor, lambda _: self._restore())

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


def _version(tensor: torch.Tensor) -> int:
    """Counts what is written to a tensor. That of a parameter is not looked at: its values are not kept."""
    return 0 if tensor.is_inference() or isinstance(tensor, nn.Parameter) else tensor._version


class CopiedBeforeWrites(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Within the block, an operation that is about to write to some memory has it copied first.

    Args:
        memory: The memory, by its place.
    """

    supports_higher_order_operators = True

    def __init__(self, memory: dict[int, Memory]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._memory = memory

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """A part that is compiled stays so."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, OpOverload):
            for position, name in _written(func):
                value = args[position] if position < len(args) else kwargs.get(name)
                for tensor in pytree.tree_leaves(value):
                    self._about_to_write(tensor)
        return func(*args, **kwargs)

    def _about_to_write(self, value: Any) -> None:
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            memory = self._memory.get(value.untyped_storage()._cdata)
            if memory is not None:
                memory.copy()


@cache
def _written(func: OpOverload) -> tuple[tuple[int, str], ...]:
    """Positions and names of the arguments that an operator writes to."""
    if not func._schema.is_mutable:
        return ()
    arguments = enumerate(func._schema.arguments)
    return tuple((i, a.name) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write)
