"""Checks in every call that the inputs meet the conditions under which torch.export captured the graph."""

from typing import Any

from torch import fx, nn

from embedl_deploy.errors import InputError
from embedl_deploy.graph.exported_inputs import EXPORTED_INPUTS, ExportedInputs
from embedl_deploy.graph.storable import StorableGraphModule


class InputGuard(nn.Module):
    """Runs the guards of an exported graph, and says what to do if an input violates one.

    Args:
        guards: torch's own module for them, which is called with all inputs.
    """

    def __init__(self, guards: nn.Module) -> None:
        super().__init__()
        self.guards = guards

    def _call_impl(self, *inputs: Any) -> None:  # what torch calls after hooks; those of the process are for the user's
        self.forward(*inputs)

    def forward(self, *inputs: Any) -> None:
        """Nothing.

        Raises:
            InputError: The graph does not hold for these inputs.
        """
        try:
            self.guards.forward(*inputs)
        except AssertionError as error:
            fault = f"{str(error).removeprefix('Guard failed: ')} does not hold"
            raise InputError(
                f"{fault}: the model was captured by torch.export, which fixed this size (or value) of the example "
                "inputs; a note in the report may name the line. Transform the model with dynamic_shapes that open "
                "this dimension, with an example of the size that you need, or with trace='symbolic'. A dimension "
                "that the code loops over cannot be open.",
                fault=fault,
            ) from error


def guarded(opened: fx.GraphModule, name: str) -> fx.GraphModule:
    """What ``ExportedProgram.module()`` gives, with guards that say what to do, and its inputs checked.

    Args:
        opened: It.
        name: What to call the class of the result.
    """
    graph_module = StorableGraphModule(opened, opened.graph, name)
    graph_module.meta = dict(opened.meta)
    note_inputs(graph_module)
    guards = graph_module._modules.get("_guards_fn")
    if guards is not None:
        graph_module._guards_fn = InputGuard(guards)
        graph_module._guards_fn.training = opened.training
    graph_module.training = opened.training
    return graph_module


def note_inputs(graph_module: fx.GraphModule) -> None:
    """Note what inputs a graph was exported for."""
    graph_module.meta[EXPORTED_INPUTS] = ExportedInputs.of(graph_module)
