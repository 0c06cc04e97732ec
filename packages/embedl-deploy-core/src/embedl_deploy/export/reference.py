"""The reference outputs that a file is compared with, and the accepted difference."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from embedl_deploy.export.kept_state import refuse_what_only_the_first_call_gives
from embedl_deploy.export.rounding import run_rounded
from embedl_deploy.verify import difference, output_tensors, signal_to_noise
from embedl_deploy.verify.difference import again_with_the_same_numbers

#: Binary digits that the model is rounded to, to find out what rounding does to it: one less than the format has, and
#: for float32 those of a change by a millionth.
_DIGITS = {torch.float16: 10, torch.bfloat16: 7}
_DIGITS_OF_FLOAT32 = 20
#: A value on an edge falls to one side or the other by chance, and a few that do may be all of the error: the model is
#: rounded to grids of the same fineness that lie elsewhere, until one explains the error or all have been tried.
_GRIDS = (1.0, 1.1, 1.3, 1.5, 1.7)
#: Accepted beside the error of rounding: 6 dB are twice as much.
_MARGIN_DB = 6.0
#: Of an output that rounding leaves less of, nothing can be said.
_LEAST_DB = 6.0


class Reference:
    """The outputs of the user's model, and what is near enough to them.

    Args:
        model: The model that the user has.
        args: Its inputs.
        kwargs: Its keyword inputs.
        names: Of its outputs, in the file.
        dtype: The floating-point type of the file.
        tolerance: Accepted without asking why: max|Δ| relative to the largest output.
        rounding: Also accept what rounding does to the model.

    Attributes:
        wanted: The model's outputs.
        digits: Binary digits that its values are rounded to.
        notes: What to know about the comparison.

    Raises:
        ExportError: The model gives something else when it is called again, because it keeps something.
    """

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        names: Sequence[str],
        dtype: torch.dtype,
        tolerance: float,
        *,
        rounding: bool,
    ) -> None:
        self._run = (model, args, kwargs)
        self._names, self._tolerance, self._rounding = tuple(names), tolerance, rounding
        self.digits = _DIGITS.get(dtype, _DIGITS_OF_FLOAT32)
        self._left: list[float] = []
        self._grids = list(_GRIDS)
        self._in_order = False
        first, again, changed = again_with_the_same_numbers(*self._run)
        self.wanted = output_tensors(first)
        refuse_what_only_the_first_call_gives(model, self.wanted, output_tensors(again), changed)
        self.notes: list[str] = []

    def accepts(self, found: list[torch.Tensor]) -> bool:
        """Whether outputs are near enough."""
        if difference(self.wanted, found).max_rel <= self._tolerance:
            return True
        self._take_equals_in_order()
        return not self._too_far(found)

    def why_not(self, found: list[torch.Tensor]) -> str:
        """How far the first output that is not accepted is, and how far it may be, as the end of a sentence."""
        if not self._rounding:
            return ""
        index = self._too_far(found)[0]
        left = self._left_by_rounding(index)
        asked = (
            f", so at least {self._least(index):.1f} dB is required"
            if left >= _LEAST_DB
            else ", which is too little to tell a correct file from a wrong one; tolerance=None writes it anyway"
        )
        return (
            f", or the effect of rounding: output {self._names[index]!r} has an SQNR of "
            f"{agreement(self.wanted[index], found[index]):.1f} dB; rounding the model's own values to {self.digits} "
            f"bits leaves {left:.1f} dB{asked}"
        )

    def all_finite(self, found: list[torch.Tensor]) -> bool:
        """Whether outputs are finite wherever the model's are."""
        return all(holds_finite(x, y) for x, y in zip(self.wanted, found, strict=True))

    def says_nothing_of(self, found: list[torch.Tensor]) -> bool:
        """Whether rounding leaves so little of an output that is not accepted that a right file might give it."""
        return self._rounding and self._left_by_rounding(self._too_far(found)[0]) < _LEAST_DB

    def _too_far(self, found: list[torch.Tensor]) -> list[int]:
        """The outputs that are not near enough."""
        pairs = list(zip(self.wanted, found, strict=True))
        apart = [i for i, (x, y) in enumerate(pairs) if not difference([x], [y]).max_rel <= self._tolerance]
        if not self._rounding:
            return apart
        wrong = [i for i in apart if not holds_finite(*pairs[i]) or not self._explains(i, agreement(*pairs[i]))]
        self.notes += [
            f"Output {self._names[i]!r} has an SQNR of {agreement(*pairs[i]):.1f} dB (20 dB is an error of a tenth); "
            f"rounding the model's own values to {self.digits} bits leaves {self._left_by_rounding(i):.1f} dB."
            for i in apart
            if not wrong
        ]
        return wrong

    def _explains(self, index: int, found: float) -> bool:
        """Whether rounding does as much to an output as was found, an agreement in dB."""
        while found < self._least(index):
            if not self._grids or not math.isfinite(found) or found < _LEAST_DB:
                return False
            self._round_once_more()
        return True

    def _least(self, index: int) -> float:
        """The agreement that is asked of an output, in dB."""
        return max(self._left_by_rounding(index) - _MARGIN_DB, _LEAST_DB)

    def _left_by_rounding(self, index: int) -> float:
        """How far an output of the model agrees with itself when it computes with fewer digits, in dB."""
        if not self._left:
            self._left = [math.inf] * len(self.wanted)
            self._round_once_more()
        return self._left[index]

    def _round_once_more(self) -> None:
        computed = run_rounded(*self._run, self.digits, self._grids.pop(0))
        self._left = [min(left, agreement(x, y)) for left, x, y in zip(self._left, self.wanted, computed, strict=True)]

    def _take_equals_in_order(self) -> None:
        """Of equal scores ONNX takes those with the lower index first, PyTorch any: compare with ONNX's order."""
        if self._in_order:
            return
        self._in_order = True
        ordered = run_rounded(*self._run, None)
        moved = [
            name
            for name, x, y in zip(self._names, self.wanted, ordered, strict=True)
            if difference([x], [y]).max_rel > self._tolerance
        ]
        if moved:
            self.wanted = ordered
            self.notes.append(
                f"Ties: output(s) {', '.join(map(repr, moved))} depend on the order of equal scores (topk, sort). ONNX "
                "takes the lower index first, PyTorch promises no order; the file was compared in ONNX's order."
            )


def agreement(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Signal to noise in dB; of integers and booleans, which may be indices, the share of those that differ."""
    if wanted.is_floating_point() or wanted.is_complex():
        return signal_to_noise([wanted], [found])
    apart = float((wanted != found.to(wanted.device)).double().mean()) if wanted.numel() else 0.0
    return -10 * math.log10(apart) if apart else math.inf


def holds_finite(wanted: torch.Tensor, found: torch.Tensor) -> bool:
    """Whether ``found`` is finite wherever ``wanted`` is."""
    return bool((found.to(wanted.device).isfinite() | ~wanted.isfinite()).all())
