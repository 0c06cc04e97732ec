"""x.ndim of an operator's result  becomes  ndim of the operator's input.

Layers check their input before they use it, ``assert x.ndim == 4``, and so give the value before them a second user
that forbids every fusion. An operator that keeps the number of dimensions can be asked at its input just as well. The
question climbs to a value that no fusion takes away: an input of the model, what flows into a convolution or a product,
or what several operators read. So a sum with the activation after it is not asked, and the activation is.
"""

import torch
from torch import fx, nn

from embedl_deploy.graph.arguments import tensor_inputs
from embedl_deploy.graph.forms.activations import ACTIVATIONS
from embedl_deploy.graph.kinds import POOLS
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.operators import is_commutative
from embedl_deploy.graph.rank import is_rank_query
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_KEEP_RANK = (
    *_WEIGHTED,
    nn.modules.batchnorm._BatchNorm,
    nn.LayerNorm,
    nn.ZeroPad2d,
    nn.Dropout,
    nn.Identity,
    *POOLS,
    *(activation.module_class for activation in ACTIVATIONS),
)


def _keeps_rank(node: fx.Node) -> bool:
    """Whether an operator's result has as many dimensions as its input."""
    module = get_module(node)
    if isinstance(module, nn.MaxPool2d) and module.return_indices:
        return False
    return isinstance(module, _KEEP_RANK)


def _place_to_ask(node: fx.Node) -> fx.Node:
    """Of a value and those of as many dimensions that it is made from, the first that no fusion takes away."""
    path = [node]
    while _keeps_rank(path[-1]):
        inputs = tensor_inputs(path[-1])
        if len(inputs) != 1:
            break
        path.append(inputs[0])
    standing = next((value for value in reversed(path) if _stays(value)), None)
    if standing is not None:
        return standing
    return path[-2] if len(path) > 1 and is_commutative(path[-1]) else path[-1]


def _stays(value: fx.Node) -> bool:
    """Whether a value is there after every fusion: it comes in, several read it, or weights are applied to it."""
    if value.op in ("placeholder", "get_attr"):
        return True
    readers = [user for user in value.users if not is_rank_query(user)]
    return len(readers) > 1 or any(user.op == "output" or _is_weighted(user) for user in readers)


def _is_weighted(node: fx.Node) -> bool:
    return isinstance(get_module(node), _WEIGHTED)


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
    """Move a query of the number of dimensions to where it does not block a fusion."""

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
        """Only the queries that can move up the graph; the others are not worth reporting."""
        matches = super().match(graph_module)
        return [match for match in matches if _place_to_ask(_asked(match)) is not _asked(match)]

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Ask the value that stays instead."""
        node, asked = pattern_match.tree_match.last, _asked(pattern_match)
        node.replace_input_with(asked, _place_to_ask(asked))
        return [node]


def _asked(match: PatternMatch) -> fx.Node:
    return match.tree_match.last.all_input_nodes[0]
