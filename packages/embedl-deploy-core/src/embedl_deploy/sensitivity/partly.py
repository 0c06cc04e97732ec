"""A quantized model with some of its points in float."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import fx, nn

from embedl_deploy.exclusive import global_state
from embedl_deploy.graph.inputs import BoundInterpreter, bind_inputs
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.sensitivity.layers import Layer, OwnQuantizers


class PartlyQuantized(nn.Module):
    """A calibrated model in which only some points are quantized, whatever quantizers they share with others.

    Args:
        model: The model. It is itself again after each call.
        points: The points that are quantized, by layer; or layers that are quantized as a whole.
        others: Quantizers to use at some points instead of the model's own.
    """

    def __init__(
        self,
        model: fx.GraphModule,
        points: Mapping[Layer, Collection[PointReport]] | Collection[Layer],
        others: Mapping[PointReport, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        if not isinstance(points, Mapping):
            points = {layer: layer.points for layer in points}
        self.points = {layer.node: (layer, of_layer) for layer, of_layer in points.items()}
        self._others = dict(others or {})  # not modules of this one: they are those of another model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model gives."""
        own = OwnQuantizers(self.model, self._others)
        with global_state, own.taken_out():
            walk = _Walk(self.model, own, self.points)
            return walk.run(*bind_inputs(self.model, args, kwargs), enable_io_processing=False)


class _Walk(BoundInterpreter):
    def __init__(
        self, model: fx.GraphModule, own: OwnQuantizers, points: dict[fx.Node, tuple[Layer, Collection[PointReport]]]
    ) -> None:
        super().__init__(model)
        self.own, self.points = own, points

    def run_node(self, n: fx.Node) -> Any:
        """The value of a node."""
        if n not in self.points:
            return super().run_node(n)
        layer, points = self.points[n]
        return self.own.result(layer, *self.fetch_args_kwargs_from_env(n), points)
