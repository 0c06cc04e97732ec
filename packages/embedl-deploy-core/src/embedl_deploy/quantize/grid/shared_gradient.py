"""Differentiable sums over ranks, and gradients of learned scales that several ranks have parts of."""

from typing import Any

import torch
import torch.distributed as dist


class _SumOfRanks(torch.autograd.Function):
    """Σ over ranks; what each rank's loss says of the sum, it says of every rank's part."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        total = x.detach().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


def sum_of_ranks(x: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
    """The sum of all ranks' tensors, of one shape, with gradients; without a group the tensor."""
    if group is None:
        return x
    total: torch.Tensor = _SumOfRanks.apply(x, group)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return total


class _Shared(torch.autograd.Function):
    """The tensor itself; its gradient times a factor, and averaged over ranks if so asked."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, shared: "GradientOfRanks") -> torch.Tensor:
        ctx.shared = shared
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        shared = ctx.shared
        gradient = gradients[0] * shared.factor
        if shared.averaged and shared.group is not None:
            dist.all_reduce(gradient, group=shared.group)
            gradient = gradient / dist.get_world_size(shared.group)
        return gradient, None


class GradientOfRanks:
    """What becomes of a gradient of which several ranks have parts. A copy of the model has the same.

    Args:
        group: The ranks; ``None`` in what was pickled, which is of one process.
        factor: By which it is multiplied.
        averaged: Whether it is averaged over the ranks, which DistributedDataParallel does for parameters.
    """

    def __init__(self, group: dist.ProcessGroup | None, factor: float, *, averaged: bool = False) -> None:
        self.group, self.factor, self.averaged = group, factor, averaged

    def __call__(self, scale: torch.Tensor) -> torch.Tensor:
        """The scale, whose gradient will be this."""
        shared: torch.Tensor = _Shared.apply(scale, self)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return shared

    def __deepcopy__(self, memo: dict[int, Any]) -> "GradientOfRanks":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return GradientOfRanks, (None, 1.0)
