"""A product of two computed tensors, with a quantization point for each."""

import math

import torch

from embedl_deploy.graph.einsum import Equation
from embedl_deploy.modules.base import FusedModule
from embedl_deploy.validation.checked import checked


class FusedActivationProduct(FusedModule):
    """``left @ right``, or a product of two tensors by an equation, computed as one product of batches of matrices.

    Args:
        equation: Which axes are multiplied and summed; ``None`` for ``left @ right``.
        alpha: A factor of the product.
        beta: A factor of what is added.
    """

    inputs_to_quantize = frozenset({0, 1})

    @checked
    def __init__(self, equation: Equation | None = None, *, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        self.equation = equation
        self.alpha = alpha
        self.beta = beta

    def forward(self, left: torch.Tensor, right: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """(..., M, K) times (..., K, N) to (..., M, N), or axes as the equation says; plus a tensor like the result."""
        product = left @ right if self.equation is None else _by_equation(self.equation, left, right)
        if self.alpha != 1.0:
            product = product * self.alpha
        if added is None:
            return product
        return product + (added if self.beta == 1.0 else added * self.beta)

    def extra_repr(self) -> str:
        """The equation, and factors."""
        parts = [] if self.equation is None else [str(self.equation)]
        parts += [f"{name}={value}" for name in ("alpha", "beta") if (value := getattr(self, name)) != 1.0]
        return ", ".join(parts)


def _by_equation(equation: Equation, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(batch, rows, summed) times (batch, summed, columns), its axes moved to those of the result."""
    batch, rows, columns, summed = equation.batch, equation.rows, equation.columns, equation.summed
    sizes = dict(zip(equation.left + equation.right, (*left.shape, *right.shape), strict=True))
    product = _as_matrices(left, equation.left, batch, rows, summed) @ _as_matrices(
        right, equation.right, batch, summed, columns
    )
    made = (*batch, *rows, *columns)
    if len(rows) != 1 or len(columns) != 1:
        product = product.reshape([sizes[axis] for axis in made])
    order = [made.index(axis) for axis in equation.result]
    return product if order == sorted(order) else product.permute(order)


def _as_matrices(tensor: torch.Tensor, axes: str, batch: str, first: str, second: str) -> torch.Tensor:
    """A tensor with the axes of the batch, and two more, each of any number of its own."""
    order = [axes.index(axis) for axis in (*batch, *first, *second)]
    moved = tensor if order == sorted(order) else tensor.permute(order)
    if len(first) == len(second) == 1:
        return moved
    sizes = dict(zip(axes, tensor.shape, strict=True))
    matrix = [math.prod(sizes[axis] for axis in part) for part in (first, second)]
    return moved.reshape([*(sizes[axis] for axis in batch), *matrix])
