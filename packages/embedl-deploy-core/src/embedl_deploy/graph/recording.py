"""The values of a graph's nodes in one run."""

from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.inputs import BoundInterpreter, bind_inputs


class _Recorder(BoundInterpreter):
    """Keeps the value of every node, as it was when it was computed."""

    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model)
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        # A copy: a later operation may overwrite the value.
        self.values[n.name] = value.clone() if isinstance(value, torch.Tensor) else None
        return value


@torch.no_grad()
def recorded_values(model: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Run a graph and keep the tensor that each node gives, by its name; ``None`` for other values."""
    recorder = _Recorder(model)
    recorder.run(*bind_inputs(model, args, kwargs), enable_io_processing=False)
    return recorder.values
