"""x.ndim of an operator's result  becomes  ndim of the operator's input.

Layers check their input before they use it, ``assert x.ndim == 4``, and so give the value before them a second user
that forbids every fusion. An operator that keeps the number of dimensions can be asked at its input just as well. The
question climbs as far as it can.
"""

from torch import fx, nn

from embedl_deploy.graph.functional import module_class_of_call
from embedl_deploy.graph.kinds import ACTIVATIONS, POOLS
from embedl_deploy.graph.lookup import get_module, tensor_inputs
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern

_KEEP_RANK = (
    nn.Conv2d,
    nn.BatchNorm2d,
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
    if node.op == "call_module":
        module = get_module(node)
        if isinstance(module, nn.MaxPool2d) and module.return_indices:
            return False
        return isinstance(module, _KEEP_RANK)
    form = module_class_of_call(node)
    return form is not None and issubclass(form, _KEEP_RANK) and get_module(node) is not None


def _top(node: fx.Node) -> fx.Node:
    while _keeps_rank(node):
        inputs = tensor_inputs(node)
        if len(inputs) != 1:
            break
        node = inputs[0]
    return node


class HoistRankQueryPattern(Pattern):
    """Ask for the number of dimensions where nothing is in the way of a fusion."""

    tree = (is_rank_query,)
    is_conversion = True

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
