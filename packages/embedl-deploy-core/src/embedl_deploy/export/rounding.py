"""A model run operator by operator, with every result rounded to fewer digits.

A format has a precision and a range. Rounding to its digits with the range of float32 shows what its precision costs a
model.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.export.operators import Operators, compute, run_operators, writes
from embedl_deploy.export.out_of_range import extremes
from embedl_deploy.verify import output_tensors

#: Whole numbers of the bits of floating-point ones, in which a magnitude counts up.
_WHOLE = {torch.float32: torch.int32, torch.float64: torch.int64}


def rounded_to(digits: int, grid: float = 1.0) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that rounds float32 and float64 to ``digits`` binary digits, at any magnitude; others stay.

    Args:
        digits: How many.
        grid: What the numbers that are rounded to are multiplied by: between 1 and 2, for another grid as fine. What
            has no more digits already stays as it is.
    """

    def nearest(x: torch.Tensor, held: int) -> torch.Tensor:
        dropped = held - digits
        low, high = extremes(x)
        most = torch.finfo(x.dtype).max * (1 - 2.0**-digits)
        if (
            x.dtype in _WHOLE and -most <= low and high <= most
        ):  # half a step is added to the magnitude, and what is below a step cut off
            whole = x.detach().view(_WHOLE[x.dtype]).add(1 << (dropped - 1))
            return whole.bitwise_and_(-(1 << dropped)).view(x.dtype)
        spread = x * (2.0**dropped + 1)  # Veltkamp's splitting (Dekker 1971), which takes longer
        near = spread - (spread - x)
        return torch.where(near.isfinite(), near, x)

    def rounded(x: torch.Tensor) -> torch.Tensor:
        held = {torch.float32: 24, torch.float64: 53, torch.float16: 11}.get(x.dtype, 0)
        if held <= digits:
            return x
        near = nearest(x, held)
        return near if grid == 1.0 else torch.where(near == x, x, nearest(x / grid, held) * grid)

    return rounded


def run_rounded(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], digits: int | None, grid: float = 1.0
) -> list[torch.Tensor]:
    """The outputs of a model with parameters, inputs and intermediate values rounded to ``digits`` binary digits.

    Equal values are sorted as ONNX has it, the lower index first; PyTorch promises no order.

    Args:
        model: Not changed.
        args: Its inputs.
        kwargs: Its keyword inputs.
        digits: ``None`` to round nothing.
        grid: As for :func:`rounded_to`.
    """
    return run_operators(model, args, kwargs, Rounding(None if digits is None else rounded_to(digits, grid)))


class Rounding(Operators):  # type: ignore[no-untyped-call]  # of torch
    """Rounds the results of operators; ``None`` to round nothing."""

    def __init__(self, rounded: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        super().__init__()
        self.rounded = rounded

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute an operator, and round what it returns."""
        rounded = self.rounded
        if rounded is None:
            return compute(func, args, kwargs)

        def state(value: Any) -> Any:
            return rounded(value) if isinstance(value, torch.Tensor) and id(value) in self.stored else value

        if not writes(func):
            args, kwargs = pytree.tree_map(state, (args, kwargs))
        result = compute(func, args, kwargs)
        returns = func._schema.returns if isinstance(func, torch._ops.OpOverload) else ()
        if not any(value.alias_info is None for value in returns):
            if writes(func):
                for value in output_tensors(result):
                    value.copy_(rounded(value))
            return result
        return pytree.tree_map(lambda v: rounded(v) if isinstance(v, torch.Tensor) else v, result)
