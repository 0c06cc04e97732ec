"""Finds calls of unknown code with weights, which may multiply and accumulate.

An empty list of what stays in float is a promise, so they are on it.
"""

from collections.abc import Iterator

from torch import fx, nn

from embedl_deploy.errors import PLUGIN_FAILURES
from embedl_deploy.graph.foreign import PRODUCTS_INSIDE, is_foreign
from embedl_deploy.graph.lookup import get_module, is_plain_torch_module
from embedl_deploy.graph.metadata import NOT_TAKEN
from embedl_deploy.graph.products import WEIGHTED, product_of_call
from embedl_deploy.graph.shapes import dtype_of
from embedl_deploy.modules import ConvertedModule, FusedModule
from embedl_deploy.quantize.placing.decisions import Decision

_NOT_TAKEN = "no fusion has taken it, or none with places"
_NOT_KNOWN = "it is from outside torch, and whether it multiplies is not known"


def opaque_calls(model: fx.GraphModule, decisions: list[Decision]) -> Iterator[tuple[str, str, str]]:
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
            reason = _NOT_KNOWN if products is None else f"no pattern knows it, and it computes {', '.join(products)}"
            yield node.name, getattr(node.target, "__name__", str(node.target)), reason
        module = get_module(node) if node.op == "call_module" else None
        if module is None or any(isinstance(part, WEIGHTED) for part in module.modules()):
            continue
        if isinstance(module, (FusedModule, ConvertedModule)):
            for product in _products_in(module):
                reason = node.meta.get(NOT_TAKEN) or getattr(module, "why_not_quantized", None) or _NOT_TAKEN
                yield node.name, type(module).__name__, f"{reason} (it computes {product})"
        elif not is_plain_torch_module(module) and any(p.dim() > 1 for p in module.parameters()):
            yield node.name, type(module).__name__, _NOT_KNOWN


def _products_in(module: nn.Module) -> list[str]:
    """The products that a module computes, as far as its ``forward`` can be traced."""
    try:
        graph = fx.Tracer().trace(module)
    except PLUGIN_FAILURES:  # forward is a backend's code, and may ask for what tracing does not have
        return []
    traced = fx.GraphModule(module, graph)
    return [name for node in traced.graph.nodes if (name := product_of_call(node)) is not None]
