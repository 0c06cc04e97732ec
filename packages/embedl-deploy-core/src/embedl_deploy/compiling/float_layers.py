"""Explains which layers of an engine are not in low precision, and why."""

from typing import TYPE_CHECKING

from embedl_deploy.artifact import is_dequantized, module_of, why_in_float
from embedl_deploy.artifact.moves import MOVES, dequantizes
from embedl_deploy.compiling.sources import WEIGHTED
from embedl_deploy.engine import BITS, EngineReport, FloatLayer

if TYPE_CHECKING:
    import onnx_ir as ir


def explain_float_layers(report: EngineReport, model: "ir.Model") -> tuple[FloatLayer, ...]:
    """Every weighted layer of an engine that computes in 16 bits or more; none for a file without quantizers."""
    nodes = {node.name: node for node in model.graph.all_nodes() if node.name}
    if not any(dequantizes(node) or node.op_type == "DynamicQuantizeLinear" for node in nodes.values()):
        return ()
    found = []
    for layer in report.layers:
        if not layer.kind.is_weighted or BITS.get(layer.precision, 32) <= 8:
            continue
        weighted = [nodes[name] for name in layer.onnx_nodes if nodes[name].op_type in WEIGHTED]
        module = module_of(weighted[0]) if weighted else (layer.modules[-1] if layer.modules else None)
        reason = _reason(weighted, model, module, layer.reason)
        found.append(FloatLayer(layer.name, layer.kind, layer.precision, module, reason))
    return tuple(found)


def _reason(weighted: "list[ir.Node]", model: "ir.Model", module: str | None, said: str) -> str:
    """The compiler's reason, or what the file shows and placement noted in it; none is guessed."""
    if said:
        return f"the compiler: {said}"
    if not weighted:
        return "the engine does not say what the layer came from"
    node = weighted[0]
    sides = [is_dequantized(value) for value in node.inputs[:2]]
    if all(sides):
        return "quantized in the file; why the compiler does not follow is not said"
    if sides[1] and not sides[0] and (stored := _stored_type(node.inputs[1])):
        return f"weight-only: the weight is stored as {stored}, the input is in float, and so is the product, as meant"
    if any(sides):
        missing = "weight" if sides[0] else "input"
        why = why_in_float(model, module) if module is not None and sides[0] else None
        only = f"the file quantizes only one side: the {missing} has no quantizer"
        return only if why is None else f"{only}, because {why}"
    why = why_in_float(model, module) if module is not None else None
    return "not quantized in the file" if why is None else f"not quantized: {why}"


def _stored_type(value: "ir.Value | None") -> str:
    """The type of a constant that is dequantized, as integers or quantized from floats; empty for anything else."""
    grid: ir.Value | None = None
    is_quantized = False
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type == "QuantizeLinear" or dequantizes(producer):
            is_quantized = True
            grid = producer.inputs[2] if len(producer.inputs) > 2 else grid
        elif producer.op_type not in MOVES:
            return ""
        value = producer.inputs[0]
    if value is None or not is_quantized or not (value.is_initializer() or value.const_value is not None):
        return ""
    kind = grid if grid is not None else value
    return "" if kind.dtype is None else kind.dtype.name.lower()
