"""The memory behind tensors: copied before it is written, and put back."""

from functools import cache
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class Memory:
    """The memory that a tensor, or several, refer to.

    Args:
        tensor: One of them.

    Attributes:
        place: What tells this memory from other memory while both exist.
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self._storage = tensor.untyped_storage()
        self._size = self._storage.nbytes()
        self._copy: torch.UntypedStorage | None = None
        self.place: int = self._storage._cdata

    def copy(self) -> None:
        """Take a copy, unless there is one."""
        if self._copy is None:
            self._copy = self._storage.clone()  # type: ignore[no-untyped-call]  # torch's has no types

    def has_changed(self) -> bool:
        """Whether it holds other bytes than the copy."""
        if self._copy is None:
            return False
        return self._storage.nbytes() != self._size or not torch.equal(_bytes(self._storage), _bytes(self._copy))

    def put_back(self) -> None:
        """Make it what the copy is."""
        if self._copy is not None and self.has_changed():
            if self._storage.nbytes() != self._size:
                self._storage.resize_(self._size)
            self._storage.copy_(self._copy)


def _bytes(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


class CopiedBeforeWrites(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Within the block, an operation that is about to write into some memory has it copied first.

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
    """Positions and names of the arguments that an operator writes into."""
    if not func._schema.is_mutable:
        return ()
    arguments = enumerate(func._schema.arguments)
    return tuple((i, a.name) for i, a in arguments if a.alias_info is not None and a.alias_info.is_write)
