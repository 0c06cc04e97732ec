"""A quantized model with some of its layers in float."""

from collections.abc import Collection
from typing import Any

from torch import fx, nn

from embedl_deploy.graph.inputs import BoundInterpreter, bind_inputs
from embedl_deploy.sensitivity.layers import Layer, OwnQuantizers


class PartlyQuantized(nn.Module):
    """A calibrated model in which only some layers are quantized, whatever quantizers they share with others.

    Args:
        model: The model. It is itself again after each call.
        layers: The layers that are quantized.
    """

    def __init__(self, model: fx.GraphModule, layers: Collection[Layer]) -> None:
        super().__init__()
        self.model = model
        self.layers = {layer.node: layer for layer in layers}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives."""
        own = OwnQuantizers(self.model)
        with own.taken_out():
            walk = _Walk(self.model, self.layers, own)
            return walk.run(*bind_inputs(self.model, args, kwargs), enable_io_processing=False)


class _Walk(BoundInterpreter):
    def __init__(self, model: fx.GraphModule, layers: dict[fx.Node, Layer], own: OwnQuantizers) -> None:
        super().__init__(model)
        self.layers, self.own = layers, own

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node."""
        if n not in self.layers:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        return self.own.result(self.layers[n], args, kwargs, weight=True, activation=True)
