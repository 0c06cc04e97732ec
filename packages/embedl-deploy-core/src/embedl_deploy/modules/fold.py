"""``nn.Fold`` as shifted blocks that are added and laid out, ``nn.Unfold`` of a grid as a permutation.

For compilers that have no such operators, or make more of them than they are.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from embedl_deploy.errors import InputError
from embedl_deploy.modules.base import ConvertedModule
from embedl_deploy.validation.checked import checked


class SummedFold(ConvertedModule):
    """What ``nn.Fold`` computes, out of padding, sums and one permutation; without weights, and in any type.

    A row of the map is row r of block q, of s rows each, where s is the stride: row u of the window that stands at
    place l falls on

        u·d + l·s = q·s + r,   q = l + ⌊u·d / s⌋,   r = u·d mod s

    so rows of windows with the same ⌊u·d / s⌋ make up one block for each place, and blocks that fall on one another are
    added. Columns likewise. Windows that do not overlap fall on blocks of their own, and nothing is added.

    Args:
        kernel_size: Height and width of the windows.
        dilation: d, from one row or column of a window to the next.
        padding: Rows and columns at each side that are left out of the map.
        stride: s, from one window to the next.

    Raises:
        InputError: A setting is not two numbers.
    """

    makes_new_tensor = True

    @checked
    def __init__(
        self,
        kernel_size: tuple[int, ...],
        dilation: tuple[int, ...],
        padding: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> None:
        super().__init__()
        for name, value in (
            ("kernel_size", kernel_size),
            ("dilation", dilation),
            ("padding", padding),
            ("stride", stride),
        ):
            if len(value) != 2:
                raise InputError(f"SummedFold: {name} is {value}; expected two numbers, for rows and columns.")
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, x: torch.Tensor, output_size: int | Sequence[int]) -> torch.Tensor:
        """(N, C·k, L), or without N, to (N, C, H, W).

        Args:
            x: L windows of k = height·width values in C channels.
            output_size: H and W, or one number for both.
        """
        height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
        places = [self._places(size, axis) for axis, size in enumerate((height, width))]
        y = torch.unflatten(x, -1, places)
        y = torch.unflatten(y, -3, (-1, *self.kernel_size))  # ..., C, rows, columns, places, places
        y = self._added(self._added(y, 0, height), 1, width)
        y = y.movedim((-2, -1), (-4, -2))  # ..., C, blocks, rows, blocks, columns
        y = y.clone(memory_format=torch.contiguous_format).flatten(-4, -3).flatten(-2)
        return self._cut(self._cut(y, 0, height), 1, width)

    def _places(self, size: int, axis: int) -> int:
        """How many windows fit along an axis of the map."""
        extent = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
        return (size + 2 * self.padding[axis] - extent) // self.stride[axis] + 1

    def _added(self, y: torch.Tensor, axis: int, size: int) -> torch.Tensor:
        """(..., rows, columns, places, places): along one axis rows of blocks, and blocks of the map, instead."""
        stride, step = self.stride[axis], self.dilation[axis]
        groups: dict[int, list[int]] = {}
        for row in range(self.kernel_size[axis]):
            groups.setdefault(row * step // stride, []).append(row)
        rows, places, last = axis - 4, axis - 2, max(groups)
        missing = self.padding[axis] + size - stride * (y.shape[places] + last)
        if stride > 1 and not (isinstance(missing, int) and missing <= 0):
            last += 1  # a block that no window reaches, and the map may
        blocks = []
        for block, members in groups.items():
            part = _spread(y.narrow(rows, members[0], len(members)), rows, step)
            above = members[0] * step - block * stride
            part = _padded(part, rows, above, stride - above - part.shape[rows])
            blocks.append(_padded(part, places, block, last - block))
        total = blocks[0]
        for each in blocks[1:]:
            total = total + each
        return total

    def _cut(self, y: torch.Tensor, axis: int, size: int) -> torch.Tensor:
        """(..., H, W): along one axis without padding, and as large as is wanted."""
        start = self.padding[axis]
        return y[..., start : start + size, :] if axis == 0 else y[..., start : start + size]

    def extra_repr(self) -> str:
        """The settings."""
        names = ("kernel_size", "dilation", "padding", "stride")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


class PermutedUnfold(ConvertedModule):
    """What ``nn.Unfold`` computes where windows lie side by side: the map in another order, and nothing twice.

    Args:
        kernel_size: Height and width of the windows, which is how far one is from the next.
        padding: Rows and columns of zeros at each side.

    Raises:
        InputError: A setting is not two numbers.
    """

    makes_new_tensor = True

    @checked
    def __init__(self, kernel_size: tuple[int, ...], padding: tuple[int, ...]) -> None:
        super().__init__()
        for name, value in (("kernel_size", kernel_size), ("padding", padding)):
            if len(value) != 2:
                raise InputError(f"PermutedUnfold: {name} is {value}; expected two numbers, for rows and columns.")
        self.kernel_size = kernel_size
        self.padding = padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), or without N, to (N, C·k, L): L windows of k = height·width values each."""
        for dim, padding in zip((-2, -1), self.padding, strict=True):
            x = _padded(x, dim, padding, padding)
        (height, width), (rows, columns) = x.shape[-2:], self.kernel_size
        high, wide = height // rows, width // columns
        x = x[..., : high * rows, : wide * columns]  # what is left over is in no window
        y = torch.unflatten(torch.unflatten(x, -1, (wide, columns)), -3, (high, rows))
        y = y.movedim((-3, -1), (-4, -3))  # ..., C, rows, columns, places, places
        return y.clone(memory_format=torch.contiguous_format).flatten(-5, -3).flatten(-2)

    def extra_repr(self) -> str:
        """The settings."""
        return f"kernel_size={self.kernel_size}, padding={self.padding}"


def _spread(x: torch.Tensor, dim: int, step: int) -> torch.Tensor:
    """The same with ``step - 1`` zeros between any two places of a dimension, which is counted from the last."""
    size = x.shape[dim]
    if step == 1 or size == 1:
        return x
    spread = _padded(x.unsqueeze(dim), dim, 0, step - 1)  # the new one comes last
    return spread.flatten(dim - 1, dim).narrow(dim, 0, (size - 1) * step + 1)


def _padded(x: torch.Tensor, dim: int, before: int, after: int) -> torch.Tensor:
    """The same with zeros at the ends of a dimension, which is counted from the last."""
    return F.pad(x, (0, 0) * (-1 - dim) + (before, after)) if before or after else x
