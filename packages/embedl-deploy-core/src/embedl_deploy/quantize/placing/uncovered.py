"""Operators with weights, and products of tensors, that have no quantization point, and why."""

from collections.abc import Collection

from torch import fx, nn

from embedl_deploy.graph.every_call import SAME_IN_EVERY_CALL, same_in_every_call
from embedl_deploy.graph.functional import state_of_call
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.metadata import NOT_TAKEN
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.products import UNWEIGHTED, WEIGHTED, is_bound_by_memory, product_of_call
from embedl_deploy.graph.state_values import is_state
from embedl_deploy.modules import FusedModule
from embedl_deploy.quantize.placing.decisions import Decision


def uncovered(model: fx.GraphModule, decisions: list[Decision]) -> list[tuple[str, str, str]]:
    """Operators with weights, and products of tensors, without a quantization point."""
    covered = {decision.point.node.name for decision in decisions}
    found = []
    constant = same_in_every_call(model.graph)
    for node in model.graph.nodes:
        if node.op not in ("call_module", "call_function", "call_method") or node.name in covered:
            continue
        module = get_module(node) if node.op == "call_module" else None
        if module is not None and any(isinstance(part, (*WEIGHTED, *UNWEIGHTED)) for part in module.modules()):
            if isinstance(module, FusedModule):
                nothing = "the module, or the pattern that placed it, declares no quantization point"
                found.append((node.name, type(module).__name__, module.why_not_quantized or nothing))
            else:
                found.append((node.name, type(module).__name__, _in_the_way(node, constant)))
        elif node.op != "call_module" and (kind := product_of_call(node)) is not None:
            found.append((node.name, kind, _in_the_way(node, constant)))
    return found


def _in_the_way(node: fx.Node, constant: Collection[fx.Node]) -> str:
    """Why no fusion has taken an operator, as far as it is known."""
    if NOT_TAKEN in node.meta:
        return str(node.meta[NOT_TAKEN])
    if node in constant:
        return SAME_IN_EVERY_CALL
    if isinstance(get_module(node), nn.EmbeddingBag):
        return "it looks rows up and adds them: it is bound by memory, not by arithmetic"
    if operation(node) in ("_grouped_mm", "grouped_mm"):
        return "each of its rows picks one of several weights while the model runs, which no integer product does"
    computed = [name for name, value in state_of_call(node).items() if not is_state(value)]
    if computed:
        return f"its {computed[0]} is computed from what flows in, so there is none to quantize beforehand"
    if is_bound_by_memory(node):
        return "it multiplies number by number and sums: it is bound by memory, not by arithmetic"
    return "no fusion has taken it"
