"""A model run operator by operator, watched for the first numbers that leave the range of their type.

The first finite operands with an infinite result show where the range of a format ends.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.export.constants import mask_value
from embedl_deploy.export.operators import Operators, compute, run_operators, writes
from embedl_deploy.verify import output_tensors, signal_to_noise

#: What rounding leaves of one operator's result is 60 dB and more; below this, its values are too small for the type.
LEAST_OF_ONE_OPERATOR_DB = 30.0


@dataclass(frozen=True)
class OutOfRange:
    """Where numbers first left the range of their type.

    Attributes:
        place: The module and operator, or the tensor, in words.
        largest: The magnitude that it has in float32; ``None`` if that is not known.
        dtype: The type that does not hold it.
    """

    place: str
    largest: float | None
    dtype: torch.dtype

    def __str__(self) -> str:
        kind, limits = str(self.dtype).removeprefix("torch."), torch.finfo(self.dtype)
        if self.largest is None:
            return f"{self.place} is infinite or NaN in {kind}, although it is computed from finite numbers"
        if self.largest > limits.max:
            return f"{self.place} reaches {self.largest:.3g}; the largest {kind} number is {limits.max:g}"
        smallest = limits.smallest_normal * limits.eps
        has = "has nothing between 0 and" if self.largest < smallest else "has no finer steps there than"
        return f"{self.place} is at most {self.largest:.3g}, and {kind} {has} {smallest:.1g}"


def run_watched(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    originals: Mapping[str, torch.Tensor],
    *,
    ordinary: Collection[str] = (),
    closely: bool = False,
) -> tuple[list[torch.Tensor], OutOfRange | None]:
    """The outputs of a model, and where its numbers first left the range of their type, upwards or to zero.

    Args:
        model: Not changed.
        args: Its inputs.
        kwargs: Its keyword inputs.
        originals: Its parameters, buffers and inputs (``"input 0"`` and so on) before they were converted.
        ordinary: Places where values that are not finite come up in the model's own types, too.
        closely: Also look for values so small that the type's steps are too coarse for them; this computes every
            operator twice.
    """
    watching = _Watching(originals, closely)
    outputs = run_operators(model, args, kwargs, watching)
    others = (each for each in watching.others if each.place not in ordinary)
    return outputs, watching.left or next(others, None)


def places_not_finite(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[str]:
    """Where a model makes NaN or infinity of finite numbers: modules and operators, in words."""
    watching = _Watching({})
    run_operators(model, args, kwargs, watching)
    return {each.place for each in watching.others if each.largest is None}


class _Watching(Operators):  # type: ignore[no-untyped-call]  # of torch
    """Finds the first operator with finite operands and a result that is not, or the first tensor that is not.

    Minus infinity alone is how masks are written; it counts if there is nothing else, as do constants that were given
    another number.
    """

    def __init__(self, originals: Mapping[str, torch.Tensor], closely: bool = False) -> None:
        super().__init__()
        self.originals = originals
        self.closely = closely
        self.left: OutOfRange | None = None
        self.others: list[OutOfRange] = []
        self._seen: set[str] = set()

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.left is None:
            self._look_at_stored(args, kwargs)
        if self.left is not None:
            return compute(func, args, kwargs)
        given = [v for v in output_tensors((args, kwargs)) if v.is_floating_point()]
        whole = not any(_leaves(v) for v in given)
        result = compute(func, args, kwargs)
        if whole and not writes(func):
            computed = [v for v in output_tensors(result) if v.is_floating_point()]
            broken = next((v for v in computed if _leaves(v) or _vanishes(v, given)), None)
            if broken is not None or (self.closely and any(v.dtype is torch.float16 for v in computed)):
                wide = pytree.tree_map(_widened, (args, kwargs))
                exact = output_tensors(compute(func, *wide))
                if broken is not None:
                    self._note(self.place(func), exact, broken)
                else:
                    self._look_closely(self.place(func), output_tensors(exact), output_tensors(result))
        return result

    def _look_at_stored(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for tensor in output_tensors((args, kwargs)):
            name = self.stored.get(id(tensor))
            new = name is not None and name not in self._seen and self.left is None
            if name is not None and new and tensor.is_floating_point():
                self._seen.add(name)
                self._look_at(name, tensor)

    def _look_at(self, name: str, tensor: torch.Tensor) -> None:
        original = self.originals.get(name)
        if original is None or original.shape != tensor.shape or original.dtype is tensor.dtype:
            return
        kind = name if name.startswith("input ") else f"the tensor {name!r}"
        converted = original.to(tensor.dtype)
        if _leaves(converted) or _vanishes(tensor, []):
            is_mask = mask_value(original, tensor.dtype) is not None
            self._note(kind, [original], converted if is_mask else converted.abs())
        elif self.closely:
            self._look_closely(kind, [original], [tensor])

    def _look_closely(self, place: str, exact: list[torch.Tensor], computed: list[torch.Tensor]) -> None:
        for x, y in zip(exact, computed, strict=True):
            if y.dtype is torch.float16 and x.is_floating_point() and x.numel():
                largest = float(x.abs().max())
                if 0 < largest < torch.finfo(y.dtype).tiny and signal_to_noise([x], [y]) < LEAST_OF_ONE_OPERATOR_DB:
                    self.left = OutOfRange(place, largest, y.dtype)
                    return

    def _note(self, place: str, exact: list[torch.Tensor], broken: torch.Tensor) -> None:
        if any(_leaves(v) for v in exact if v.is_floating_point()):
            self.others.append(OutOfRange(place, None, broken.dtype))  # 0/0, for example, of what became zero before
        finite = [v.abs()[v.isfinite()] for v in exact if v.is_floating_point()]
        largest = max((float(v.max()) for v in finite if v.numel()), default=0.0)
        limits = torch.finfo(broken.dtype)
        if limits.smallest_normal * limits.eps <= largest <= limits.max or largest == 0:
            return  # the same in float32
        found = OutOfRange(place, largest, broken.dtype)
        if bool((broken.isnan() | (broken == math.inf)).any()) or largest < 1:
            self.left = found
        else:
            self.others.append(found)


def extremes(x: torch.Tensor) -> tuple[float, float]:
    """The lowest and the highest value, NaN if there is any; in one pass, where ``isfinite`` takes several."""
    if x.numel() == 0:
        return 0.0, 0.0
    x = x.detach()
    low, high = torch.aminmax(x if x.dtype.itemsize > 1 else x.float())  # those of 8 bits have no order in torch
    return float(low), float(high)


def _leaves(x: torch.Tensor) -> bool:
    return not all(map(math.isfinite, extremes(x)))


def _vanishes(x: torch.Tensor, given: list[torch.Tensor]) -> bool:
    """Whether all of ``x`` is zero, made of what is not."""
    return x.numel() > 0 and extremes(x) == (0.0, 0.0) and all(bool(v.any()) for v in given if v.numel())


def _widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.float()
    return torch.float32 if value in (torch.float16, torch.bfloat16) else value
