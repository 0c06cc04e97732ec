"""What an engine's layers came from: ONNX nodes, PyTorch modules, and the operations that those do."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from embedl_deploy.artifact import modules_by_node, operations_of
from embedl_deploy.engine import EngineLayer, LayerKind

if TYPE_CHECKING:
    import onnx_ir as ir

_KINDS = {
    "Conv": LayerKind.CONVOLUTION,
    "ConvTranspose": LayerKind.CONVOLUTION,
    "Gemm": LayerKind.GEMM,
    "MatMul": LayerKind.GEMM,
}


def with_sources(layers: Sequence[EngineLayer], model: "ir.Model") -> tuple[EngineLayer, ...]:
    """The layers with modules and operations filled in.

    A compiler may name a node in several layers: the one that multiplies and the one that adds the bias. Operations
    count where the layer multiplies, once. A layer of a kind that the compiler's word leaves open has the kind of the
    node that it multiplies for.
    """
    modules = modules_by_node(model)
    order = {node.name: index for index, node in enumerate(model.graph.all_nodes()) if node.name}
    operations = {node.name: operations_of(node) for node in model.graph.all_nodes() if node.name}
    kinds = {n.name: _KINDS[n.op_type] for n in model.graph.all_nodes() if n.name and n.op_type in _KINDS}
    counted: set[str] = set()
    found = []
    for layer in layers:
        nodes = sorted((name for name in layer.onnx_nodes if name in order), key=order.__getitem__)
        total, kind = 0, layer.kind
        if kind is LayerKind.OTHER:
            kind = next((kinds[name] for name in nodes if name in kinds and name not in counted), kind)
        if kind.is_weighted:
            new = [name for name in nodes if name not in counted]
            total = sum(operations[name] for name in new)
            counted.update(name for name in new if operations[name])
        paths = tuple(dict.fromkeys(modules[name] for name in nodes if name in modules))
        found.append(replace(layer, kind=kind, onnx_nodes=tuple(nodes), modules=paths, operations=total))
    return tuple(found)
