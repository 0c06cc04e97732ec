"""A graph module of its own with quantizers at some points, for a user's function to work with."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import fx, nn

from embedl_deploy.graph.edit import copy_of_shared_parameters, deep_copy, is_free
from embedl_deploy.graph.lookup import submodule
from embedl_deploy.modules import QuantStub
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.sensitivity.layers import Layer


def with_points(
    model: fx.GraphModule,
    points: Mapping[Layer, Collection[PointReport]],
    others: Mapping[PointReport, nn.Module] | None = None,
) -> fx.GraphModule:
    """A copy of a calibrated model in which only some points are quantized, in evaluation mode.

    It computes what :class:`~embedl_deploy.sensitivity.partly.PartlyQuantized` computes, if calls of one module have
    the same points inside it.

    Args:
        model: The model. Parameters are shared with it.
        points: The points that are quantized, by layer.
        others: Quantizers to use at some points instead of the model's own.
    """
    others = others or {}
    copied = copy_of_shared_parameters(model)
    stubs = {path: part for path, part in copied.named_modules() if isinstance(part, QuantStub)}
    own = {path: stub.quantizer for path, stub in stubs.items()}
    flowing = [node for node in copied.graph.nodes if node.op == "call_module" and str(node.target) in stubs]
    in_graph = {str(node.target) for node in flowing}
    read: dict[tuple[str, str], Any] = {}  # what a node reads from a stub, by node and stub
    kept: dict[str, Any] = {}  # what stubs inside modules and behind them hold
    for layer, of_layer in points.items():
        for point in of_layer:
            quantizer = others.get(point, own[point.stub])
            if point.kind is PointKind.INPUT and not point.stub.startswith(f"{layer.path}."):
                read[point.node, point.stub] = quantizer
            else:
                kept[point.stub] = quantizer
    for path, stub in stubs.items():
        stub.quantizer = kept.get(path, own[path] if path in in_graph else None)
    for node in flowing:
        path = str(node.target)
        for user in list(node.users):
            asked, source = read.get((user.name, path)), node if path in kept else node.args[0]
            if asked is None:
                user.replace_input_with(node, source)
            elif asked is not stubs[path].quantizer:
                user.replace_input_with(node, _stub_with(copied, node, asked, source))
    for node in reversed(flowing):
        if not node.users:
            copied.graph.erase_node(node)
    copied.recompile()
    return copied.eval()


def _stub_with(model: fx.GraphModule, node: fx.Node, quantizer: nn.Module | None, source: object) -> fx.Node:
    """One more stub like that of a node, with another quantizer, that reads ``source``."""
    number = next(number for number in range(1, 10**6) if is_free(model, f"{node.target}_{number}"))
    stub = deep_copy(submodule(model, str(node.target)))
    stub.quantizer = quantizer  # type: ignore[assignment]  # as every stub's
    model.add_submodule(f"{node.target}_{number}", stub)
    with model.graph.inserting_after(node):
        return model.graph.call_module(f"{node.target}_{number}", (source,))  # type: ignore[arg-type]  # a node
