"""Accepts programs that users exported themselves."""

from typing import Any

import torch
from torch import fx

from embedl_deploy.capture.assertions import drop_assertions
from embedl_deploy.capture.guard import guarded
from embedl_deploy.capture.model_type import follow_the_model
from embedl_deploy.capture.switched_off import inline_switched_off
from embedl_deploy.graph.derived_sizes import upper_limit
from embedl_deploy.graph.exported_inputs import EXPORTED_INPUTS, ExportedInputs
from embedl_deploy.graph.open_dimensions import OPEN_DIMENSIONS, OpenDimensions
from embedl_deploy.modules.device import device_of
from embedl_deploy.validation.checked import checked


@checked
def module_of(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """The graph module of an exported program, with its guards and open dimensions; it moves to devices."""
    module = program.module()
    inline_switched_off(module)
    graph_module = guarded(module, "GraphModule")
    drop_assertions(graph_module)
    follow_the_model(graph_module, device_of(graph_module))
    inputs = graph_module.meta.get(EXPORTED_INPUTS)
    if isinstance(inputs, ExportedInputs):
        graph_module.meta[OPEN_DIMENSIONS] = _open_in(program, graph_module, inputs)
    return graph_module


def _open_in(
    program: torch.export.ExportedProgram, graph_module: fx.GraphModule, inputs: ExportedInputs
) -> OpenDimensions:
    """The dimensions of a program's inputs that are open; sizes that are one symbol have one name."""
    named: dict[str, torch.export.Dim] = {}

    def dim_of(size: Any) -> Any:
        limits = program.range_constraints.get(size.node.expr)
        if limits is None:
            return torch.export.Dim.AUTO
        # An open size is taken for two or more, which is not a limit that the user set.
        low = None if limits.lower <= 2 else int(limits.lower)
        return named.setdefault(str(size), torch.export.Dim(str(size), min=low, max=upper_limit(limits.upper)))

    values = [node.meta.get("val") for node in graph_module.graph.find_nodes(op="placeholder")]
    found = [
        {at: dim_of(size) for at, size in enumerate(value.shape) if not isinstance(size, int)}
        if isinstance(value, torch.Tensor)
        else {}
        for value in values
    ]
    parts = [child for part in inputs.structure.children() for child in part.children()]
    rest = iter(found)
    return OpenDimensions(
        {
            name: tuple(next(rest) for _ in range(part.num_leaves))
            for name, part in zip(inputs.names, parts, strict=True)
        }
    )
