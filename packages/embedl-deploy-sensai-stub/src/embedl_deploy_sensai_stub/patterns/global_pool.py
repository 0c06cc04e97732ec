"""Averages over the whole map  become  AdaptiveAvgPool2d(1), which is fused.

    y[n, c] = Σ_{i, j} x[n, c, i, j] / (H · W)

is written in three ways: ``AdaptiveAvgPool2d(1)``, ``x.mean((2, 3))``, and ``AvgPool2d`` with a window as large as the
map. Two conversions make the second and the third the first, with a ``Flatten`` after it where the mean drops the two
dimensions; so there is one fusion.

Declined: what `limits` names; an unknown shape; hooks on the pool, which would be lost. ``AvgPool2d`` is a global
average for maps of the example's size only, and so is the model in which it has become one.
"""

import math
from collections.abc import Sequence

from torch import fx, nn

from embedl_deploy.patterns import (
    Example,
    Pattern,
    PatternMatch,
    QDQPoint,
    has_hooks,
    insert_call,
    replace_match,
    replace_tree,
    resolve_module,
    shape_of,
)
from embedl_deploy_sensai_stub.limits import global_pool_limit, mean_limit, pair, times
from embedl_deploy_sensai_stub.modules import SensaiGlobalAveragePool
from embedl_deploy_sensai_stub.small_models import Applied, image


class GlobalAveragePoolPattern(Pattern):
    """``AdaptiveAvgPool2d(1)``."""

    tree = (nn.AdaptiveAvgPool2d,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = SensaiGlobalAveragePool

    def check(self, match: PatternMatch) -> str | None:
        """Take only what the engine runs."""
        return global_pool_limit(resolve_module(match.tree_match.get_node(0), nn.AdaptiveAvgPool2d))

    def examples(self) -> Sequence[Example]:
        """The pool before a classifier."""
        return (Example(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), image(), "as in ResNet"),)

    def near_misses(self) -> Sequence[Example]:
        """Another output size."""
        return (Example(nn.AdaptiveAvgPool2d(2), image(), "averages over quarters of the map"),)


class MeanToGlobalPoolPattern(Pattern):
    """Write ``x.mean((2, 3))`` as global average pooling."""

    tree = ("mean",)
    is_conversion = True

    def check(self, match: PatternMatch) -> str | None:
        """Take only a mean over height and width."""
        return mean_limit(match.tree_match.get_node(0))

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the pool there, with a flatten after it unless the mean keeps its dimensions."""
        node = pattern_match.tree_match.get_node(0)
        keeps = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
        nodes = [insert_call(pattern_match, nn.AdaptiveAvgPool2d(1), pattern_match.tree_match.inputs())]
        if not keeps:
            nodes.append(insert_call(pattern_match, nn.Flatten(1), nodes, path=str(nodes[0].target)))
        replace_match(pattern_match, nodes[-1])
        return nodes

    def examples(self) -> Sequence[Example]:
        """The mean that drops the dimensions, and the one that keeps them."""
        return (
            Example(Applied(lambda _, x: x.mean((2, 3))), image(), "drops the dimensions"),
            Example(Applied(lambda _, x: x.mean([-1, -2], keepdim=True)), image(), "keeps the dimensions"),
        )

    def near_misses(self) -> Sequence[Example]:
        """Means over something else."""
        return (
            Example(Applied(lambda _, x: x.mean(1)), image(), "averages over channels"),
            Example(Applied(lambda _, x: x.mean((1, 2, 3))), image(), "averages over channels, too"),
            Example(Applied(lambda _, x: x.sum((2, 3))), image(), "a sum is not a mean"),
        )


class AvgPoolToGlobalPoolPattern(Pattern):
    """Write ``AvgPool2d`` with a window as large as the map as global average pooling."""

    tree = (nn.AvgPool2d,)
    is_conversion = True

    def check(self, match: PatternMatch) -> str | None:
        """Take only one window that is the whole map."""
        pool = resolve_module(match.tree_match.get_node(0), nn.AvgPool2d)
        shape = shape_of(match.tree_match.inputs()[0])
        if shape is None:
            return "the shape of its input is unknown: pass example inputs, args="
        window = pair(pool.kernel_size)
        if window != shape[-2:] or pair(pool.padding) != (0, 0):
            return f"its window is {times(window)} with padding {pool.padding}, and the map is {times(shape[-2:])}"
        if pool.divisor_override not in (None, math.prod(window)):
            return f"divides by {pool.divisor_override}, not by the {math.prod(window)} pixels"
        return "hooks on the pool would be lost" if has_hooks(pool) else None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the pool there."""
        return replace_tree(pattern_match, [nn.AdaptiveAvgPool2d(1)])

    def examples(self) -> Sequence[Example]:
        """The pool of a network for one image size."""
        return (Example(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), image(), "a window of 8×8 on a map of 8×8"),)

    def near_misses(self) -> Sequence[Example]:
        """A smaller window, and another divisor."""
        return (
            Example(nn.AvgPool2d(7), image(), "one row and one column are left out"),
            Example(nn.AvgPool2d(8, divisor_override=60), image(), "divides by another number than the pixels"),
        )
