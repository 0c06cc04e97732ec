"""Finds discontinuous operators, at which rounding alone changes a model's outputs.

``floor``, ``fmod``, comparisons, ``topk``: two operands that are the same but for their last bits may give results that
have nothing in common. Behind such a place a file in fewer bits cannot be compared, right or wrong.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from embedl_deploy.export.operands import name_of
from embedl_deploy.export.operators import run_operators
from embedl_deploy.export.rounding import Rounding, rounded_to
from embedl_deploy.verify import output_tensors, signal_to_noise

_JUMPING = frozenset(
    {
        *("floor", "ceil", "round", "trunc", "frac", "fmod", "remainder", "floor_divide", "sign", "sgn", "heaviside"),
        *("eq", "ne", "lt", "le", "gt", "ge", "argmax", "argmin", "max", "min", "topk", "sort", "argsort", "kthvalue"),
        *("median", "mode", "nonzero", "bucketize", "searchsorted", "multinomial", "bernoulli", "_to_copy", "atan2"),
    }
)
#: A result has jumped if its error, relative to its largest value, is above the first although its operands have at
#: least the second as SQNR in dB.
_JUMP, _AGREE_DB = 0.05, 20.0
#: Values that are kept for the comparison; later operators are not looked at.
_MOST_VALUES = 1 << 28


@dataclass(frozen=True)
class Jump:
    """A discontinuity that two runs are on different sides of.

    Attributes:
        place: The operator and module, in words.
        share: Of the values of its result, those that differ.
        operands: How far its operands agree, in dB.
    """

    place: str
    share: float
    operands: float

    def __str__(self) -> str:
        return (
            f"{self.place} is discontinuous, and {self.share:.2g} of its values are others, of operands that agree "
            f"to {self.operands:.1f} dB"
        )


@dataclass(frozen=True)
class _Call:
    name: str
    operands: list[torch.Tensor]
    results: list[torch.Tensor]


class _Recording(Rounding):  # type: ignore[no-untyped-call]  # of torch
    """Keeps operands and results of operators that jump, or compares them with those of another run."""

    def __init__(self, other: list[_Call] | None = None, digits: int | None = None) -> None:
        super().__init__(None if digits is None else rounded_to(digits))
        self.calls: list[_Call] = []
        self.other = other
        self.found: Jump | None = None
        self._room = _MOST_VALUES

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().operate(func, args, kwargs)
        name = name_of(func)
        if (name in _JUMPING or (name == "div" and kwargs.get("rounding_mode"))) and self.found is None:
            operands = [v for v in output_tensors((args, kwargs)) if v.is_floating_point()]
            call = _Call(name, operands, output_tensors(result))
            self._room -= sum(v.numel() for v in (*call.operands, *call.results))
            if call.operands and self._room >= 0:
                self._compare_or_keep(func, call)
        return result

    def _compare_or_keep(self, func: Any, call: _Call) -> None:
        index = len(self.calls)
        kept = [[v.detach().clone() for v in side] for side in (call.operands, call.results)]
        self.calls.append(_Call(call.name, *(kept if self.other is None else ([], []))))
        if self.other is None or index >= len(self.other):
            return
        was = self.other[index]
        if was.name != call.name or [v.shape for v in was.results] != [v.shape for v in call.results]:
            self.other = self.other[:index]  # from here on the two do not do the same
            return
        agree = signal_to_noise(was.operands, call.operands)
        shares = [_jumped(x, y) for x, y in zip(was.results, call.results, strict=True)]
        if agree >= _AGREE_DB and max(shares, default=0.0) > 0:
            self.found = Jump(self.place(func), max(shares), agree)


Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


def first_jump(
    exact: nn.Module, exact_inputs: Inputs, other: nn.Module, other_inputs: Inputs, digits: int | None = None
) -> Jump | None:
    """The first operator that jumps to other results in one model than in another.

    Args:
        exact: A model.
        exact_inputs: Its inputs, as a tuple and a dictionary.
        other: The same in another type; or the same again, with ``digits``.
        other_inputs: Its inputs.
        digits: Round the values of ``other`` to this number of binary digits.
    """
    first = _Recording()
    run_operators(exact, exact_inputs[0], exact_inputs[1], first)
    second = _Recording(first.calls, digits)
    run_operators(other, other_inputs[0], other_inputs[1], second)
    return second.found


def _jumped(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """The share of values that have jumped."""
    if wanted.numel() == 0:
        return 0.0
    if not wanted.is_floating_point():
        return float((wanted != found).double().mean())
    x, y = wanted.double(), found.double()
    largest = x[x.isfinite()].abs().amax() if bool(x.isfinite().any()) else x.new_zeros(())
    return float(((x - y).abs() > _JUMP * largest).double().mean())
