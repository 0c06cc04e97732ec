"""Assigns ONNX nodes, PyTorch modules and operation counts to the layers of an engine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from embedl_deploy.artifact import modules_by_node, operations_of
from embedl_deploy.engine import EngineLayer, LayerKind

if TYPE_CHECKING:
    import onnx_ir as ir

#: Operators that multiply matrices, and what a layer that runs them is.
WEIGHTED = {
    "Conv": LayerKind.CONVOLUTION,
    "ConvTranspose": LayerKind.CONVOLUTION,
    "Gemm": LayerKind.GEMM,
    "MatMul": LayerKind.GEMM,
    "ConvInteger": LayerKind.CONVOLUTION,
    "MatMulInteger": LayerKind.GEMM,
}

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def with_sources(
    layers: Sequence[EngineLayer], model: "ir.Model", shapes: Mapping[str, tuple[int, ...]]
) -> tuple[EngineLayer, ...]:
    """The layers with modules and operations filled in, those of values of these shapes.

    A compiler may name a node in several layers: the one that multiplies and the one that adds the bias. Operations
    count where the layer multiplies, once. A layer of a kind that the compiler's word leaves open has the kind of the
    node that it multiplies for. Quantizers are modules too, which the user's model does not have: a layer that computes
    something else comes from the modules of that.
    """
    modules = modules_by_node(model)
    known = {node.name: node for node in model.graph.all_nodes() if node.name}
    order = {name: index for index, name in enumerate(known)}
    counted: set[str] = set()
    found = []
    for layer in layers:
        nodes = sorted((name for name in layer.onnx_nodes if name in order), key=order.__getitem__)
        new = [name for name in nodes if known[name].op_type in WEIGHTED and name not in counted]
        total, kind = 0, layer.kind
        if kind is LayerKind.OTHER and new:
            kind = WEIGHTED[known[new[0]].op_type]
        if kind.is_weighted:
            operations = {name: operations_of(known[name], shapes) for name in new}
            total = sum(operations.values())
            counted.update(name for name, count in operations.items() if count)
        computing = [name for name in nodes if known[name].op_type not in _QUANTIZERS] or nodes
        paths = tuple(dict.fromkeys(modules[name] for name in computing if name in modules))
        found.append(replace(layer, kind=kind, onnx_nodes=tuple(nodes), modules=paths, operations=total))
    return tuple(found)
