"""AdaptiveAvgPool2d that changes nothing  is removed.

Pooling an H×W map to H×W is the identity. It needs the shape of the input (``args=``, or ``ShapeProp`` beforehand),
and the model is right for that spatial size only, which it asserts from then on; the batch size stays free.

Declined: unknown shape; a map of another size, or of one that is left open by ``dynamic_shapes``; a value that is
overwritten in place later, because the output is a copy of the input and its absence would let the write through.
"""

import torch
from torch import fx, nn
from torch.fx.node import has_side_effect

from embedl_deploy.errors import InputError
from embedl_deploy.graph import is_left_open, why_copy_is_needed
from embedl_deploy.patterns import Example, Pattern, PatternMatch, Tapped, resolve_module, shape_of


def _maps() -> tuple[torch.Tensor]:
    """(N, 4, H, W), for examples."""
    return (torch.randn(2, 4, 8, 8),)


class RemoveIdentityAdaptiveAvgPoolPattern(Pattern):
    """Remove adaptive pooling to the size that the map already has."""

    tree = (nn.AdaptiveAvgPool2d,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.AdaptiveAvgPool2d((8, 8)), nn.ReLU()), _maps()),
            Example(nn.Sequential(nn.AdaptiveAvgPool2d((None, 8)), nn.ReLU()), _maps(), "a side as it is"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(
                nn.Sequential(nn.AdaptiveAvgPool2d((8, 4)), nn.ReLU()),
                _maps(),
                "it halves the width",
            ),
            Example(
                Tapped(nn.Identity(), nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.ReLU(inplace=True))),
                _maps(),
                "its copy is overwritten",
            ),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take only what is known to change nothing."""
        node = match.tree_match.get_node(0)
        wanted = _wanted(node)
        shape = shape_of(node.all_input_nodes[0])
        if shape is None:
            return "the input's shape is unknown: pass example inputs, args="
        if any(want not in (None, have) for want, have in zip(wanted, shape[-2:], strict=True)):
            return f"it pools {shape[-2]}×{shape[-1]} to {wanted[0]}×{wanted[1]}"
        if _may_be_of_another_size(node):
            return "dynamic_shapes leaves sizes open, and maps of another size would be pooled"
        return why_copy_is_needed(node)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Give the input to the pool's users, and assert its size."""
        node = pattern_match.tree_match.last
        source = node.all_input_nodes[0]
        shape = shape_of(source)
        if shape is not None and _wanted(node) != (None, None):
            _assert_size(node, source, shape[-2:])
        node.replace_all_uses_with(source)
        node.graph.erase_node(node)
        return []


def _wanted(node: fx.Node) -> tuple[int | None, int | None]:
    """The size that a pool pools to; ``None`` for a side that it leaves as it is."""
    size = resolve_module(node, nn.AdaptiveAvgPool2d).output_size
    height, width = (size, size) if isinstance(size, int) or size is None else size
    return height, width


def _may_be_of_another_size(node: fx.Node) -> bool:
    """Whether the user left open a side that is pooled."""
    source = node.all_input_nodes[0]
    sides = zip((-2, -1), _wanted(node), strict=True)
    return any(want is not None and is_left_open(source, axis) for axis, want in sides)


def _assert_size(pool: fx.Node, source: fx.Node, size: tuple[int, ...]) -> None:
    """Make the graph refuse maps of another size, which the pool would have changed."""
    with pool.graph.inserting_before(pool):
        pool.graph.call_function(require_map, (source, *size, pool.name))


def require_map(x: torch.Tensor, height: int, width: int, pool: str) -> None:
    """Nothing, for a map (N, C, ``height``, ``width``).

    Raises:
        InputError: It is of another size.
    """
    if tuple(x.shape[-2:]) != (height, width):
        raise InputError(
            f"a map is {x.shape[-2]}×{x.shape[-1]} where the example inputs gave {height}×{width}, for which "
            f"{pool!r} was removed. Transform the model with an example of this size, or without "
            "RemoveIdentityAdaptiveAvgPoolPattern."
        )


has_side_effect(require_map)
