"""Identity  is removed.

``nn.Identity``, and dropout that never drops (p = 0, as a module or a call of a function), return the very tensor that
they are given, so removing them changes neither values nor sharing of memory; left in, they stand between operators
that belong together. Dropout with p > 0 stays: it is an identity in evaluation mode only.

Declined: hooks on the module, which would be lost.
"""

import torch
from torch import fx, nn

from embedl_deploy.graph.forms.fixed_mode import FrozenDropout
from embedl_deploy.graph.lookup import get_module, has_hooks
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern


def is_identity(node: fx.Node) -> bool:
    """Whether a call returns its only tensor, in every mode."""
    if node.op == "call_module" and (len(node.args) != 1 or node.kwargs or not isinstance(node.args[0], fx.Node)):
        return False
    module = get_module(node)
    if type(module) is nn.Identity:
        return True
    # As a function, dropout is a module that stays in one mode.
    return isinstance(module, nn.Dropout) and type(module) in (nn.Dropout, FrozenDropout) and module.p == 0


class RemoveIdentityPattern(Pattern):
    """Remove modules that do nothing."""

    tree = (is_identity,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.Conv2d(4, 4, 1), nn.Identity(), nn.ReLU()), (torch.randn(2, 4, 8, 8),)),
            Example(
                nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(0.0), nn.ReLU()),
                (torch.randn(2, 4, 8, 8),),
                "dropout that never drops",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        watched = nn.Identity()
        watched.register_forward_hook(lambda module, args, output: None)
        return [
            Example(
                nn.Sequential(nn.Conv2d(4, 4, 1), nn.Dropout(0.1), nn.ReLU()),
                (torch.randn(2, 4, 8, 8),),
                "it drops in training mode",
            ),
            Example(
                nn.Sequential(nn.Conv2d(4, 4, 1), watched, nn.ReLU()), (torch.randn(2, 4, 8, 8),), "a hook watches it"
            ),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Keep a module that the user watches."""
        module = get_module(match.tree_match.last)
        return "hooks on the module would be lost" if module is not None and has_hooks(module) else None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Give the input to the node's users."""
        node = pattern_match.tree_match.last
        node.replace_all_uses_with(node.all_input_nodes[0])
        node.graph.erase_node(node)
        return []
