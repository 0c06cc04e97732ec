"""What the layers of ``nn.TransformerEncoder`` and ``nn.TransformerDecoder`` have in common, taken apart."""

import operator
from collections.abc import Callable
from typing import Any

from torch import fx, nn
from torch.nn import functional as F

from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.replacement import claim_container, insert_call

_ACTIVATIONS: dict[Any, type[nn.Module]] = {F.relu: nn.ReLU, F.gelu: nn.GELU}


def unknown_activation(layer: Any) -> str | None:
    """Why a layer's activation cannot be called as a module, if it cannot."""
    if isinstance(layer.activation, nn.Module) or layer.activation in _ACTIVATIONS:
        return None
    name = getattr(layer.activation, "__name__", repr(layer.activation))
    return f"its activation, {name}, is not a module and neither ReLU nor GELU"


class LayerParts:
    """Inserts the parts of a layer before the call that they replace.

    Args:
        match: The match of the layer's call.
        layer: The layer.

    Attributes:
        new: The nodes so far.
    """

    def __init__(self, match: PatternMatch, layer: Any) -> None:
        self.match = match
        self.layer = layer
        self.home = claim_container(match, match.tree_match.last)
        self.new: list[fx.Node] = []

    def residual(self, norm: str, x: fx.Node, branch: Callable[[fx.Node], fx.Node]) -> fx.Node:
        """X + branch(norm(x)), or norm(x + branch(x)), as the layer has it.

        Args:
            norm: Name of the normalization.
            x: The value.
            branch: Inserts what is added.
        """
        if self.layer.norm_first:
            return self._compute(operator.add, x, branch(self._call(norm, x)))
        return self._call(norm, self._compute(operator.add, x, branch(x)))

    def attend(self, attention: str, dropout: str, query: fx.Node, memory: fx.Node, mask: Any, padding: Any) -> fx.Node:
        """dropout(attention(query, memory, memory)), with masks or ``None``."""
        attended = self._call(attention, query, memory, memory, padding, False, mask)
        return self._call(dropout, self._compute(operator.getitem, attended, 0))

    def feed_forward(self, dropout: str, x: fx.Node) -> fx.Node:
        """The two products with the activation between them."""
        activation = self.layer.activation
        if not isinstance(activation, nn.Module):
            activation = _ACTIVATIONS[activation]()
        hidden = self._call("activation", self._call("linear1", x), module=activation)
        return self._call(dropout, self._call("linear2", self._call("dropout", hidden)))

    def _call(self, name: str, *args: Any, module: nn.Module | None = None) -> fx.Node:
        part = getattr(self.layer, name) if module is None else module
        return self._kept(insert_call(self.match, part, args, path=f"{self.home}.{name}"))

    def _compute(self, function: Callable[..., Any], *args: Any) -> fx.Node:
        last = self.match.tree_match.last
        with last.graph.inserting_before(last):
            return self._kept(last.graph.call_function(function, args))

    def _kept(self, node: fx.Node) -> fx.Node:
        self.new.append(node)
        return node
