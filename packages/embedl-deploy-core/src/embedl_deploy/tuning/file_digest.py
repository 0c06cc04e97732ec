"""A digest of what an ONNX file computes: the same for files that differ in names and in the order of nodes only."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir


def digest_of(model: "ir.Model") -> str:
    """The digest of a model: operators, attributes, constants, and types and names of inputs and outputs."""
    graph = model.graph
    known: dict[Any, str] = {value: _of("input", value.name, value.dtype, value.shape) for value in graph.inputs}

    def of_value(value: "ir.Value | None") -> str:
        if value is None or value in known:
            return "" if value is None else known[value]
        constant = value.const_value
        if constant is None:  # a value of an outer graph, or one without a type
            return _of("value", value.name)
        known[value] = _of("constant", constant.dtype, constant.shape, constant.tobytes())
        return known[value]

    for node in graph:
        attributes = sorted((name, _attribute(value, of_value)) for name, value in node.attributes.items())
        inputs = [of_value(value) for value in node.inputs]
        of_node = _of(node.domain, node.op_type, *inputs, *(part for pair in attributes for part in pair))
        for index, output in enumerate(node.outputs):
            known[output] = _of(of_node, index)
    outputs = [(value.name, value.dtype, value.shape, of_value(value)) for value in graph.outputs]
    versions = sorted(model.opset_imports.items())
    given = [known[value] for value in graph.inputs]
    return _of(*(part for row in (versions, *outputs) for part in row), *given)


def _attribute(value: Any, of_value: Callable[[Any], str]) -> str:
    """An attribute's value; a graph with what it computes with of the outer one."""
    import onnx_ir as ir

    proto = ir.to_proto(value).SerializeToString(deterministic=True)
    outer = ""
    if value.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
        graphs = [value.as_graph()] if value.type is ir.AttributeType.GRAPH else list(value.as_graphs())
        outer = "".join(of_value(each) for graph in graphs for node in graph.all_nodes() for each in node.inputs)
    return _of(proto, outer)


def _of(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        encoded = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()
