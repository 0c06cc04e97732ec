"""AdaptiveAvgPool2d that changes nothing  is removed.

Pooling an H×W map to H×W is the identity. It needs the shape of the input (``args=``, or ``ShapeProp`` beforehand),
and makes the model right for that spatial size only; the batch size stays free.

Declined: unknown shape; a map of another size; a value that is overwritten in place later, because the pool's output
is a copy of its input and its absence would let the write through.
"""

import torch
from torch import fx, nn

from embedl_deploy.graph.effects import Effects
from embedl_deploy.patterns import Example, Pattern, PatternMatch, resolve_module, shape_of
from embedl_deploy.tensorrt.patterns.example_parts import Tapped


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
        size = resolve_module(node, nn.AdaptiveAvgPool2d).output_size
        wanted = (size, size) if isinstance(size, int) or size is None else tuple(size)
        shape = shape_of(node.all_input_nodes[0])
        if shape is None:
            return "the input's shape is unknown: pass example inputs, args="
        if any(want not in (None, have) for want, have in zip(wanted, shape[-2:], strict=True)):
            return f"it pools {shape[-2]}×{shape[-1]} to {wanted[0]}×{wanted[1]}"
        effects, source = Effects(node.graph), node.all_input_nodes[0]
        writer = next(effects.written_after(node), None)
        if writer is not None and not effects.owns_its_memory(source):
            return f"{writer.name} overwrites its output in place, and would overwrite what {source.name} belongs to"
        if writer is not None and len(source.users) > 1:
            return f"{writer.name} overwrites its output in place, and the input is used elsewhere"
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Give the input to the pool's users."""
        node = pattern_match.tree_match.last
        node.replace_all_uses_with(node.all_input_nodes[0])
        node.graph.erase_node(node)
        return []
