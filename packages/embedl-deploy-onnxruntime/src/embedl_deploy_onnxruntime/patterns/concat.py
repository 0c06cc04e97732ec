"""The fusion of concatenation."""

from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.patterns import (
    Applied,
    Example,
    Pattern,
    PatternMatch,
    QDQPoint,
    dtype_of,
    replace_tree,
)
from embedl_deploy_onnxruntime.modules import OrtConcat
from embedl_deploy_onnxruntime.patterns.examples import maps


class ConcatPattern(Pattern):
    """``torch.cat`` of tensors of floating-point numbers."""

    tree = (torch.cat,)
    qdq_points = frozenset({QDQPoint.OUTPUT})

    def check(self, match: PatternMatch) -> str | None:
        """Take a concatenation of known tensors of floating-point numbers in a known dimension."""
        tensors, dim = _arguments(match.tree_match.get_node(0))
        if not isinstance(tensors, (list, tuple)) or not all(isinstance(each, fx.Node) for each in tensors):
            return "its tensors are not listed at the call"
        if not isinstance(dim, int):
            return "its dimension is computed"
        types = [dtype_of(each) for each in tensors]
        if not all(dtype is not None and dtype.is_floating_point for dtype in types) or len(set(types)) > 1:
            return "it is not known to be of floating-point numbers of one type: pass example inputs, args="
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there, which takes each tensor by itself."""
        _, dim = _arguments(pattern_match.tree_match.get_node(0))
        return replace_tree(pattern_match, [OrtConcat(dim)])

    def examples(self) -> list[Example]:
        """Where it matches."""
        two = Applied(lambda a, b, x: torch.cat([a(x), b(x)], 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
        return [
            Example(two, maps(), "branches of a block"),
            Example(Applied(lambda a, x: torch.cat((x, a(x), x), dim=-3), nn.Conv2d(4, 4, 1)), maps(), "one twice"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(Applied(lambda a, x: torch.stack([a(x), x], 1), nn.Conv2d(4, 4, 1)), maps(), "a new dimension"),
            Example(Applied(lambda x: torch.cat([(x > 0).long(), x.long()], 1)), maps(), "integers"),
        ]


def _arguments(node: fx.Node) -> tuple[Any, Any]:
    """The tensors and the dimension of a call."""
    named = dict(zip(("tensors", "dim"), node.args, strict=False)) | dict(node.kwargs)
    return named.get("tensors"), named.get("dim", named.get("axis", 0))
