"""Finds calls of unknown code with weights, which may multiply and accumulate.

An empty list of what stays in float is a promise, so they are on it.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import fx, nn

from embedl_deploy.errors import PLUGIN_FAILURES
from embedl_deploy.graph.foreign import PRODUCTS_INSIDE, is_foreign
from embedl_deploy.graph.lookup import get_module, is_plain_torch_module
from embedl_deploy.graph.products import WEIGHTED, product_of_call
from embedl_deploy.graph.shapes import dtype_of
from embedl_deploy.modules import ConvertedModule, FusedModule, LeafTracer
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.reporting.causes import UncoveredCause, WhyUncovered, not_taken
from embedl_deploy.quantize.reporting.report import Uncovered

_UNKNOWN = UncoveredCause(WhyUncovered.UNKNOWN)


def opaque_calls(model: fx.GraphModule, decisions: list[Decision]) -> Iterator[Uncovered]:
    """Functions and whole modules from outside torch, and products inside modules without a weight.

    Args:
        model: A transformed model.
        decisions: About its points; what has one is left out.

    Yields:
        Node name, function or class, reason.
    """
    covered = {decision.point.node.name for decision in decisions}
    for node in model.graph.nodes:
        dtype = dtype_of(node)
        if node.name in covered or (dtype is not None and not dtype.is_floating_point):
            continue
        products = node.meta.get(PRODUCTS_INSIDE)
        if is_foreign(node) and products != ():
            cause = _UNKNOWN if products is None else UncoveredCause(WhyUncovered.NO_PATTERN, ", ".join(products))
            yield Uncovered.because(node.name, getattr(node.target, "__name__", str(node.target)), cause)
        module = get_module(node) if node.op == "call_module" else None
        if module is None or any(isinstance(part, WEIGHTED) for part in module.modules()):
            continue
        if isinstance(module, (FusedModule, ConvertedModule)):
            for product in _products_in(module):
                cause = replace(_why_in_float(node, module), product=product)
                yield Uncovered.because(node.name, type(module).__name__, cause)
        elif not is_plain_torch_module(module) and any(p.dim() > 1 for p in module.parameters()):
            yield Uncovered.because(node.name, type(module).__name__, _UNKNOWN)


def _why_in_float(node: fx.Node, module: nn.Module) -> UncoveredCause:
    told = not_taken(node)
    opted_out = getattr(module, "why_not_quantized", None)
    if told is None and opted_out:
        return UncoveredCause(WhyUncovered.OPTS_OUT, opted_out)
    return told or UncoveredCause(WhyUncovered.NOT_FUSED_OR_NO_POINT)


def _products_in(module: nn.Module) -> list[str]:
    """The products that a module computes, as far as its ``forward`` can be traced."""
    try:
        graph = LeafTracer().trace(module)
    except PLUGIN_FAILURES:  # forward is a backend's code, and may ask for what tracing does not have
        return []
    traced = fx.GraphModule(module, graph)
    return [name for node in traced.graph.nodes if (name := product_of_call(node)) is not None]
