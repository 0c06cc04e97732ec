"""Replaces constants that the floating-point type of the file cannot represent.

A mask is written with a number that no score reaches, -1e9 or the lowest of float32; a norm is kept from zero by 1e-12.
In float16 the first would be minus infinity, and a row that is masked throughout NaN; the second would be zero, and 0/0
NaN. So a finite constant stays finite, and one that is not zero does not become it:

    a bound, as of ``clamp``           the largest number of the type
    up to twice the largest number     the largest number
    beyond                             three quarters of the next power of two, 49152 in float16, to which a score can
                                       be added without leaving the range
    a summand or a bound near zero     the smallest number
    a mask of the lowest number        three quarters, too, in float16, where a score makes minus infinity of it

In float32 a score beside -1e9 is lost, so that a row that is masked throughout has equal weights. Beside -49152 it is
not, so what is summed with such a mask is bounded by half of the range, -32768: all that is masked is equal again.

Whether the model computes the same with them is found out as for any file: by comparison.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.graph.inputs import tensors_in

_BOUNDS = frozenset({"clamp", "clip", "clamp_min", "clamp_max", "maximum", "minimum", "hardtanh", "nan_to_num"})
_SUMS = frozenset({"add", "sub", "rsub"})
#: What masks are made with.
MAKING_MASKS = frozenset({"full", "full_like", "new_full", "scalar_tensor", "fill", "masked_fill", "where", "mul"})


@dataclass(frozen=True)
class Replaced:
    """A constant that took the place of another.

    Attributes:
        value: The model's.
        by: The file's.
        place: Where it stands, in words.
        tensor: Name of the parameter or buffer that has it, or ``"input 0"``; empty where ``forward`` has it.
    """

    value: float
    by: float
    place: str
    tensor: str = ""

    @property
    def masks(self) -> bool:
        """Whether it stands for minus infinity."""
        return self.by < 0 and (self.value < 2 * self.by or self.by == -stand_in(torch.float16))


def fitting(value: float, dtype: torch.dtype, operator: str = "") -> float:
    """The number of a type that takes the place of a constant; the constant itself where it needs none.

    Args:
        value: The constant.
        dtype: The type.
        operator: Name of the operator that is given it: ``"clamp"``, ``"add"``, ...
    """
    limits, size = torch.finfo(dtype), abs(value)
    if not math.isfinite(value):
        return value
    if size > limits.max:
        near = operator in _BOUNDS or size <= 2 * limits.max
        return math.copysign(limits.max if near else stand_in(dtype), value)
    if value == limits.min and dtype is torch.float16 and operator in MAKING_MASKS:
        return -stand_in(dtype)
    smallest = limits.smallest_normal * limits.eps
    if 0 < size <= smallest / 2 and operator in _BOUNDS | _SUMS:
        return math.copysign(smallest, value)
    return value


def stand_in(dtype: torch.dtype) -> float:
    """What takes the place of infinity where that is far from every value, and something is added to it."""
    return 0.75 * 2.0 ** math.frexp(torch.finfo(dtype).max)[1]


def bound_of_sums(dtype: torch.dtype) -> float:
    """Below it is what is masked, in a sum with a mask: half of the range."""
    return -stand_in(dtype) * 2 / 3


def fit_tensor(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A tensor in another type: finite numbers stay finite, and one alone that is not zero does not become zero."""
    converted = tensor.detach().to(dtype)
    if not _may_become_another(tensor, dtype):
        return converted
    if tensor.numel() == 1:
        value = float(tensor)
        other = fitting(value, dtype, "add" if abs(value) < 1 else "")
        return converted if other == value else torch.full_like(converted, other)
    lost = converted.isinf() & tensor.isfinite()
    if bool(lost.any()):
        far = tensor.abs() > 2 * torch.finfo(dtype).max
        size = torch.where(far, stand_in(dtype), torch.finfo(dtype).max)
        converted = torch.where(lost, (tensor.sign() * size).to(dtype), converted)
    return converted


@torch.no_grad()
def convert(model: nn.Module, dtype: torch.dtype) -> list[Replaced]:
    """Convert a model's parameters and buffers, in place, by :func:`fit_tensor`.

    Returns:
        What became another number than a conversion makes of it.
    """
    before = dict((*model.named_parameters(), *model.named_buffers()))
    before = {name: tensor for name, tensor in before.items() if tensor.is_floating_point()}
    kept = {name: tensor.detach().clone() for name, tensor in before.items() if _loses(tensor, dtype)}
    model.to(dtype)
    replaced = []
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in kept and tensor.dtype is dtype:
            tensor.copy_(fit_tensor(kept[name], dtype))
            replaced.append(_of_tensor(kept[name], dtype, f"the tensor {name!r}", name))
    return replaced


def convert_inputs(inputs: Any, dtype: torch.dtype | None, kept: Collection[int] = ()) -> tuple[Any, list[Replaced]]:
    """Floating-point tensors in ``dtype``, by :func:`fit_tensor`, and what became another number.

    Args:
        inputs: Tensors, in whatever structures.
        dtype: The type; ``None`` leaves all as it is.
        kept: Identities of tensors that stay as they are.
    """
    if dtype is None:
        return inputs, []
    replaced = [
        _of_tensor(tensor, dtype, f"input {index}", f"input {index}")
        for index, tensor in enumerate(tensors_in(inputs))
        if tensor.is_floating_point() and id(tensor) not in kept and _loses(tensor, dtype)
    ]

    def converted(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if id(tensor) in kept or not tensor.is_floating_point() else fit_tensor(tensor, dtype)

    return pytree.tree_map_only(torch.Tensor, converted, inputs), replaced


def _may_become_another(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a conversion is one between floating-point types, from one that has more than 8 bits (stored weights)."""
    wide = tensor.is_floating_point() and tensor.element_size() > 1
    return wide and dtype.is_floating_point and tensor.dtype is not dtype


def _loses(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    if not _may_become_another(tensor, dtype):
        return False
    converted = tensor.detach().to(dtype)
    if tensor.numel() == 1:
        return not bool((fit_tensor(tensor, dtype) == converted) | tensor.isnan())
    return bool((converted.isinf() & tensor.isfinite()).any())


def _of_tensor(tensor: torch.Tensor, dtype: torch.dtype, place: str, name: str) -> Replaced:
    finite = torch.where(tensor.isfinite(), tensor, 0.0).reshape(-1)
    value = float(finite[finite.abs().argmax()])
    return Replaced(value, float(fit_tensor(torch.tensor(value, dtype=tensor.dtype), dtype)), place, name)


def mask_value(tensor: torch.Tensor, dtype: torch.dtype) -> float | None:
    """The number that a mask is written with; ``None`` if what leaves the range of ``dtype`` looks like no mask.

    A mask has one number beyond the range, and it is negative. What a model computes has many.
    """
    lost = tensor[tensor.isfinite() & tensor.to(dtype).isinf()]
    if lost.numel() == 0 or not bool((lost == lost[0]).all()) or bool(lost[0] > 0):
        return None
    return float(lost[0])


def in_words(replaced: Sequence[Replaced], dtype: torch.dtype) -> list[str]:
    """One line for each number that another took the place of; empty if there are none."""
    places = Counter((each.value, each.by) for each in replaced)
    first = {(each.value, each.by): each.place for each in reversed(replaced)}
    kind = str(dtype).removeprefix("torch.")
    lowest = torch.finfo(dtype).min

    def why(value: float) -> str:
        return f"from which {kind} can subtract nothing" if value == lowest else f"which {kind} cannot hold"

    return [
        f"{value:.6g}, {why(value)}, is replaced with {by:.6g} in {first[value, by]}"
        + (f" and {count - 1} more place(s)." if count > 1 else ".")
        for (value, by), count in places.items()
    ]
