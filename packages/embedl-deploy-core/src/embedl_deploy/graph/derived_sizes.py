"""Sizes that are computed from others, such as ``2 * h``, as ``torch.export.Dim`` has them."""

from dataclasses import dataclass
from typing import Any

#: Sizes from here on are not limits: ``torch.export`` says infinity, or the largest number that an index can be.
_NO_LIMIT = 2**31


@dataclass(frozen=True)
class DerivedSize:
    """A size that is computed from another, ``factor * base + offset``, which ``torch.export`` keeps as a function.

    Attributes:
        base: The other.
        factor: How many times it.
        offset: And how many more; less than none for fewer.
    """

    base: Any
    factor: int
    offset: int

    @staticmethod
    def of(dim: Any) -> "DerivedSize":
        """Of a ``Dim`` that is computed from another, which it is linearly."""
        offset = size_where(dim, 0)
        return DerivedSize(root_of(dim), size_where(dim, 1) - offset, offset)

    def dim(self) -> Any:
        """The ``Dim`` again."""
        return self.factor * self.base + self.offset


def root_of(dim: Any) -> Any:
    """The dimension that ``dim`` is computed from: ``h`` of ``2 * h``, or itself."""
    return getattr(dim, "root", dim)


def size_where(dim: Any, size: int) -> int:
    """The size of ``dim`` where that of its root is ``size``: 6 of ``2 * h`` where ``h`` is 3."""
    return int(dim.fn(size)) if root_of(dim) is not dim else size


def root_where(dim: Any, size: int) -> int:
    """The size of the root where that of ``dim`` is ``size``, rounded down; relations are linear in torch.export."""
    start = size_where(dim, 0)
    return (size - start) // (size_where(dim, 1) - start)


def upper_limit(largest: Any) -> int | None:
    """The largest size that a ``Dim`` or a range allows; ``None`` where ``torch.export`` has infinity there."""
    return int(largest) if largest < _NO_LIMIT else None
