"""The layers of an engine: the nodes of the optimized model, as the profiler saw them run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from embedl_deploy.engine import EngineLayer, EngineTensor
from embedl_deploy_onnxruntime.compiler.kinds import COMPUTED_IN, kind_of
from embedl_deploy_onnxruntime.compiler.left_in_float import why_in_float
from embedl_deploy_onnxruntime.compiler.profiling import NodeTime
from embedl_deploy_onnxruntime.compiler.sources import Sources

if TYPE_CHECKING:
    import onnx_ir as ir

_TYPES = {"float": "float32", "double": "float64", "float8e4m3fn": "float8_e4m3", "float8e5m2": "float8_e5m2"}
_FILE_TYPES = {"FLOAT8E4M3FN": "float8_e4m3", "FLOAT8E5M2": "float8_e5m2"}
#: Domains of operators of the runtime's own, in short.
_DOMAINS = {"com.microsoft.nchwc": "nchwc.", "com.ms.internal.nhwc": "nhwc."}


def engine_layers(
    model: "ir.Model", optimized: "ir.Model", times: Mapping[str, NodeTime], inputs: Mapping[str, tuple[int, ...]]
) -> tuple[EngineLayer, ...]:
    """A layer for each node that ran, in that order.

    Args:
        model: The file.
        optimized: Its optimized model, whose nodes have names of their own.
        times: What the profiler says of the nodes, by name.
        inputs: The shapes that it was run with.
    """
    ran = {str(node.name): node for node in optimized.graph if node.name in times}
    nodes = sorted(ran.values(), key=lambda node: times[str(node.name)].place)
    sources = Sources(model, nodes)
    known = _constants(optimized)
    for value in optimized.graph.inputs:
        known[str(value.name)] = EngineTensor(str(value.name), inputs[str(value.name)], _word(value.dtype))
    for node in nodes:
        known |= _written(node, times[str(node.name)])
    return tuple(_layer(node, times[str(node.name)].seconds, sources, known) for node in nodes)


def _layer(node: "ir.Node", seconds: float, sources: Sources, known: Mapping[str, EngineTensor]) -> EngineLayer:
    read = [value for value in node.inputs if value is not None and value.name in known]
    return EngineLayer(
        str(node.name),
        kind_of(node.op_type),
        _DOMAINS.get(node.domain, "") + node.op_type,
        inputs=tuple(known[str(value.name)] for value in read if not value.is_initializer()),
        outputs=tuple(known[str(value.name)] for value in node.outputs if value.name in known),
        constants=tuple(known[str(value.name)] for value in read if value.is_initializer()),
        onnx_nodes=sources.names_of(node),
        reason=why_in_float(node),
        computed_in=COMPUTED_IN.get(node.op_type, ""),
        seconds=seconds,
    )


def _constants(model: "ir.Model") -> dict[str, EngineTensor]:
    """The weights: the profiler does not list those that a kernel has packed for itself."""
    found = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            shape = tuple(value.const_value.shape.numpy())
            found[name] = EngineTensor(name, shape, _word(value.const_value.dtype))
    return found


def _written(node: "ir.Node", ran: NodeTime) -> dict[str, EngineTensor]:
    """What a node has written, by name; nothing where the profiler left out what is no tensor, such as a sequence."""
    values = [value for value in node.outputs if value.name]
    if len(values) != len(ran.outputs):
        return {}
    blocked = node.domain == "com.microsoft.nchwc" and node.op_type != "ReorderOutput"
    return {
        str(value.name): EngineTensor(str(value.name), shape, _TYPES.get(kind, kind), "NCHWc" if blocked else "")
        for value, (kind, shape) in zip(values, ran.outputs, strict=True)
    }


def _word(dtype: "ir.DataType | None") -> str:
    """An element type of a file."""
    return "" if dtype is None else _FILE_TYPES.get(dtype.name, dtype.numpy().name)
