"""AdaptiveAvgPool2d that changes nothing  is removed.

Pooling an H×W map to H×W is the identity. It needs the shape of the input (``args=``, or ``ShapeProp`` beforehand),
and makes the model right for that spatial size only; the batch size stays free.

Declined: unknown shape; a map of another size; a value that is overwritten in place later, because the pool's output
is a copy of its input and its absence would let the write through.
"""

from torch import fx, nn

from embedl_deploy.graph.effects import Effects
from embedl_deploy.patterns import Pattern, PatternMatch, resolve_module, shape_of


class RemoveIdentityAdaptiveAvgPoolPattern(Pattern):
    """Remove adaptive pooling to the size that the map already has."""

    tree = (nn.AdaptiveAvgPool2d,)
    is_conversion = True

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
