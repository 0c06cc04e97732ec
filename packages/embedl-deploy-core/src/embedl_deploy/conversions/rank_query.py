"""x.ndim of an operator's result  becomes  ndim of the operator's input.

Layers check their input before they use it, ``assert x.ndim == 4``, and so give the value before them a second user
that forbids every fusion. An operator that keeps the number of dimensions can be asked at its input just as well. The
question climbs as far as it can.
"""

import torch
from torch import fx, nn

from embedl_deploy.graph.kinds import ACTIVATIONS, POOLS
from embedl_deploy.graph.lookup import get_module, tensor_inputs
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern

_KEEP_RANK = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.Linear,
    nn.ZeroPad2d,
    nn.Dropout,
    nn.Identity,
    *POOLS,
    *ACTIVATIONS,
)


def is_rank_query(node: fx.Node) -> bool:
    """Whether a node asks for the number of dimensions of a value: ``x.ndim``, ``x.dim()``."""
    if node.op == "call_function" and node.target is getattr:
        return len(node.args) == 2 and node.args[1] == "ndim"
    return node.op == "call_method" and node.target in ("dim", "ndimension")


def _keeps_rank(node: fx.Node) -> bool:
    """Whether an operator's result has as many dimensions as its input."""
    module = get_module(node)
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        return False
    return isinstance(module, _KEEP_RANK)


def _top(node: fx.Node) -> fx.Node:
    while _keeps_rank(node):
        inputs = tensor_inputs(node)
        if len(inputs) != 1:
            break
        node = inputs[0]
    return node


class _Asking(nn.Module):
    """Divides by the number of dimensions of what its parts give, for examples."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any tensor, to what the parts make of it."""
        y: torch.Tensor = self.parts(x)
        return y / y.ndim


class HoistRankQueryPattern(Pattern):
    """Ask for the number of dimensions where nothing is in the way of a fusion."""

    tree = (is_rank_query,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(_Asking(nn.Conv2d(4, 6, 1), nn.ReLU()), (torch.randn(2, 4, 8, 8),), "asked of an activation"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(_Asking(nn.Flatten(1)), (torch.randn(2, 4, 8, 8),), "flattening changes the rank"),
            Example(_Asking(), (torch.randn(2, 4, 8, 8),), "asked of the input already"),
        ]

    def match(self, graph_module: fx.GraphModule) -> list[PatternMatch]:
        """Only questions that can climb; the others are no business of the user's."""
        matches = super().match(graph_module)
        return [m for m in matches if _top(m.nodes[0].all_input_nodes[0]) is not m.nodes[0].all_input_nodes[0]]

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Ask the topmost value instead."""
        node = pattern_match.tree_match.last
        asked = node.all_input_nodes[0]
        node.replace_input_with(asked, _top(asked))
        return [node]
