"""The scores of an attention: the product of queries and keys, and what is between it and the softmax."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from embedl_deploy.recomposition.products import Operand


@dataclass(frozen=True)
class View:
    """A view that only changes the axes of the batch.

    Attributes:
        sizes: What it is given, one for each axis.
        shape: The shape of its result.
    """

    sizes: tuple[Any, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """f·q·kᵀ, capped, with a mask added, hidden, and seen through views.

    Attributes:
        query: (..., L, D).
        key: (..., S, D).
        nodes: What computes them, the product first.
        factor: f.
        factors: Tensors by which queries are multiplied or divided: operation and tensor.
        softcap: c of c·tanh(x/c), or ``None``.
        added: Steps that make the mask: ``("add", tensor)``, ``("sub", tensor)``, ``("mul", factor)``.
        hidden: Booleans, and whether they say where a score is replaced, or where it is not.
        hidden_score: By what.
        dtype: In which the softmax is computed, if a cast says it.
        views: The views on the way, in order: none, one, or one and the way back.
        outside: What is added or hides and is not seen through the first view alone.
    """

    query: Operand
    key: Operand
    nodes: tuple[fx.Node, ...]
    factor: float = 1.0
    factors: tuple[tuple[str, fx.Node], ...] = ()
    softcap: float | None = None
    added: tuple[tuple[str, Any], ...] = ()
    hidden: tuple[tuple[fx.Node, bool], ...] = ()
    hidden_score: float = -math.inf
    dtype: torch.dtype | None = None
    views: tuple[View, ...] = ()
    outside: tuple[fx.Node, ...] = ()

    def then(self, node: fx.Node, **changes: Any) -> "Scores":
        """These scores, changed by one more node."""
        return replace(self, nodes=(*self.nodes, node), **changes)

    def with_mask(self, node: fx.Node, mask: fx.Node, **changes: Any) -> "Scores":
        """These scores, with a mask that a node adds or fills in."""
        outside = self.outside if len(self.views) == 1 else (*self.outside, mask)
        return self.then(node, outside=outside, **changes)


class NoScoresError(Exception):
    """What stands where scores would: the text is the reason."""
