"""Compares a graph with its ONNX file, module by module, in ONNX Runtime."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from embedl_deploy.artifact import module_of, read_onnx
from embedl_deploy.export import run_onnx
from embedl_deploy.graph.recording import recorded_values
from embedl_deploy.stages.layers import LayerDifference
from embedl_deploy.verify import difference, signal_to_noise

if TYPE_CHECKING:
    import onnx_ir as ir


def compare_onnx_layers(
    reference: fx.GraphModule,
    path: Path,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inputs: list[torch.Tensor],
) -> tuple[LayerDifference, ...]:
    """Run both and compare what the calls of modules give, in the order of the graph.

    The file says of each node which module it came from. A module is compared if it is called once and gives one
    value, which the file holds in the same shape; functions between modules are not.

    Args:
        reference: The graph that was exported.
        path: The file.
        args: Inputs of the graph.
        kwargs: Its keyword inputs.
        inputs: The same for the file, in the order and the types of its inputs.

    Raises:
        ExportError: ONNX Runtime is not there, or refuses the file.
    """
    import onnx_ir as ir

    model = read_onnx(path)
    values = _results(model)
    calls = [node for node in reference.graph.nodes if node.op == "call_module"]
    targets = [str(node.target) for node in calls]
    compared = [node for node in calls if str(node.target) in values and targets.count(str(node.target)) == 1]
    names = [value.name for value in model.graph.outputs]
    for value in (values[str(node.target)] for node in compared):
        if value.name not in names:
            names.append(value.name)
            model.graph.outputs.append(value)
    with tempfile.TemporaryDirectory() as folder:
        widened = Path(folder) / "model.onnx"
        ir.save(model, widened, external_data="model.onnx.data")
        given = dict(zip(names, run_onnx(widened, *inputs), strict=True))
    wanted = recorded_values(reference, args, kwargs)
    found = []
    for node in compared:
        x, y = wanted[node.name], given[values[str(node.target)].name]
        if x is not None and x.shape == y.shape and x.is_floating_point() and y.is_floating_point():
            found.append(LayerDifference(node.name, str(node.target), signal_to_noise(x, y), difference(x, y)))
    return tuple(found)


def _results(model: "ir.Model") -> dict[str, "ir.Value"]:
    """For each module, and each module around it, the one value that is read outside of it; those without one out."""
    leaving: dict[str, dict[str, ir.Value]] = {}
    for node in model.graph:
        module = module_of(node)
        for value in node.outputs if module else ():
            readers = [module_of(use.node) or "" for use in value.uses()]
            for place in _and_those_around(module or ""):
                if value.is_graph_output() or any(place not in _and_those_around(reader) for reader in readers):
                    leaving.setdefault(place, {})[value.name or ""] = value
    return {place: next(iter(values.values())) for place, values in leaving.items() if len(values) == 1}


def _and_those_around(module: str) -> list[str]:
    """``a.b.c`` as ``a``, ``a.b`` and ``a.b.c``."""
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]
