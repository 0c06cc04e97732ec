"""Emulates float16 in float32: every value is rounded, and may overflow.

Hardware adds up products in float32 and rounds the result, which is what this does for each operator. Only nodes that
are to stay in float32 are not rounded.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from embedl_deploy.export.operands import name_of
from embedl_deploy.export.operators import Operators, Plain, compute, run_operators, shows, writes
from embedl_deploy.float16.watching import all_finite, round_to_half, values_of
from embedl_deploy.verify import output_tensors

#: What a model is called with.
Call = tuple[tuple[Any, ...], dict[str, Any]]


class Emulating(Operators):  # type: ignore[no-untyped-call]  # of torch
    """Computes operators in float16, but for those of some nodes.

    Args:
        kept: The nodes that stay in float32.

    Attributes:
        broken: Nodes that made a value that is not finite of finite ones.
    """

    def __init__(self, kept: Collection[fx.Node]) -> None:
        super().__init__()
        self.kept = kept
        self.broken: set[fx.Node] = set()

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute an operator, and round what it is given and what it returns."""
        if self.node is None or self.node in self.kept or shows(func):  # what shows others' memory may be written to
            return compute(func, args, kwargs)
        if writes(func):
            result = compute(func, args, kwargs)
            for value in output_tensors(result):
                if value.is_floating_point():
                    value.copy_(round_to_half(value))
            return result
        given, named = pytree.tree_map(round_to_half, (args, kwargs))
        result = pytree.tree_map(round_to_half, compute(func, given, named))
        if not all_finite(values_of(name_of(func), result)) and all_finite((given, named)):
            self.broken.add(self.node)
        return result


def run_exact(model: fx.GraphModule, call: Call) -> list[torch.Tensor]:
    """The outputs of a model in its own type."""
    return run_taken_apart(model, call, Plain())


def run_taken_apart(model: fx.GraphModule, call: Call, operators: Operators) -> list[torch.Tensor]:
    """The outputs of a model whose operators, attention taken apart, are computed by ``operators``."""
    with sdpa_kernel(SDPBackend.MATH):
        return run_operators(model, *call, operators)


def run_emulated(
    model: fx.GraphModule, call: Call, kept: Collection[fx.Node]
) -> tuple[list[torch.Tensor], set[fx.Node]]:
    """The outputs of a model in float16, and the nodes that made values that are not finite.

    Args:
        model: In float32. Not changed.
        call: What it is called with.
        kept: Nodes of its graph that stay in float32.
    """
    emulating = Emulating(kept)
    outputs = run_taken_apart(model, call, emulating)
    return outputs, emulating.broken
