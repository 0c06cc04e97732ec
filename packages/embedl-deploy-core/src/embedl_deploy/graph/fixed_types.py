"""Inputs of a graph that stay in float32 in whatever type the model is."""

from typing import Any

from torch import fx, nn

from embedl_deploy.graph.inputs import bind_inputs

#: ``meta`` entry of a graph module: names of the placeholders.
FLOAT32_INPUTS = "embedl_deploy.float32_inputs"


def float32_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> frozenset[int]:
    """Identities of the inputs that a model takes in float32, whatever type it is in."""
    names = getattr(model, "meta", {}).get(FLOAT32_INPUTS, ())
    if not names or not isinstance(model, fx.GraphModule):
        return frozenset()
    placeholders = model.graph.find_nodes(op="placeholder")
    bound = zip(placeholders, bind_inputs(model, args, kwargs), strict=True)
    return frozenset(id(value) for node, value in bound if node.name in names)
