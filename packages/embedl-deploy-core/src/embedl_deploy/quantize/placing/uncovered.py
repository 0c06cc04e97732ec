"""Operators with weights, and products of tensors, that have no quantization point, and why."""

from collections.abc import Collection

from torch import fx, nn

from embedl_deploy.graph.every_call import same_in_every_call
from embedl_deploy.graph.functional import state_of_call
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.products import UNWEIGHTED, WEIGHTED, is_bound_by_memory, product_of_call
from embedl_deploy.graph.state_values import is_state
from embedl_deploy.modules import FusedModule
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.reporting.causes import UncoveredCause, WhyUncovered, declared_by, not_taken
from embedl_deploy.quantize.reporting.report import Uncovered

_NO_POINT = "the module, or the pattern that placed it, declares no quantization point"


def uncovered(model: fx.GraphModule, decisions: list[Decision]) -> list[Uncovered]:
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
                cause = declared_by(module.why_not_quantized, _NO_POINT)
            else:
                cause = _in_the_way(node, constant)
            found.append(Uncovered.because(node.name, type(module).__name__, cause))
        elif node.op != "call_module" and (kind := product_of_call(node)) is not None:
            found.append(Uncovered.because(node.name, kind, _in_the_way(node, constant)))
    return found


def _in_the_way(node: fx.Node, constant: Collection[fx.Node]) -> UncoveredCause:
    """Why no fusion has taken an operator, as far as it is known."""
    told = not_taken(node)
    if told is not None:
        return told
    if node in constant:
        return UncoveredCause(WhyUncovered.SAME_IN_EVERY_CALL)
    if isinstance(get_module(node), nn.EmbeddingBag):
        return UncoveredCause(WhyUncovered.BOUND_BY_MEMORY, "looks rows up and adds them")
    if operation(node) in ("_grouped_mm", "grouped_mm"):
        return UncoveredCause(WhyUncovered.ROWS_PICK_WEIGHTS)
    computed = [name for name, value in state_of_call(node).items() if not is_state(value)]
    if computed:
        return UncoveredCause(WhyUncovered.COMPUTED_WEIGHT, computed[0])
    if is_bound_by_memory(node):
        return UncoveredCause(WhyUncovered.BOUND_BY_MEMORY, "multiplies number by number and sums")
    return UncoveredCause(WhyUncovered.NOT_FUSED)
