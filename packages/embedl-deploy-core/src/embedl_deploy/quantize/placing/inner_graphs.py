"""Inner graphs of torch's higher-order operators: branches, loops, autocast blocks.

No pattern looks into them, so what multiplies and accumulates there stays in float.
"""

from collections.abc import Iterator

from torch import fx
from torch._ops import HigherOrderOperator

from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.products import UNWEIGHTED, WEIGHTED, product_of_call
from embedl_deploy.quantize.reporting.causes import UncoveredCause, WhyUncovered
from embedl_deploy.quantize.reporting.report import Uncovered


def products_inside(model: fx.GraphModule) -> Iterator[Uncovered]:
    """Operators with a weight and products in the graphs inside a graph.

    Args:
        model: A transformed model.

    Yields:
        Path of the inner graph and node name, operator or operation, reason.
    """
    for node in model.graph.nodes:
        if not isinstance(node.target, HigherOrderOperator):
            continue
        name = node.target.name()  # type: ignore[no-untyped-call]  # torch's
        by = "under torch.autocast" if name == "wrap_with_autocast" else f"by torch's {name}"
        for source in node.all_input_nodes:
            part = getattr(model, str(source.target), None) if source.op == "get_attr" else None
            if isinstance(part, fx.GraphModule):
                yield from _products_of(part, str(source.target), UncoveredCause(WhyUncovered.INNER_GRAPH, by))


def _products_of(part: fx.GraphModule, path: str, cause: UncoveredCause) -> Iterator[Uncovered]:
    for node in part.graph.nodes:
        module = get_module(node) if node.op == "call_module" else None
        if module is not None and any(isinstance(each, (*WEIGHTED, *UNWEIGHTED)) for each in module.modules()):
            yield Uncovered.because(f"{path}.{node.name}", type(module).__name__, cause)
        elif node.op in ("call_function", "call_method") and (kind := product_of_call(node)) is not None:
            yield Uncovered.because(f"{path}.{node.name}", kind, cause)
    for each in products_inside(part):
        yield Uncovered(f"{path}.{each.node}", each.operator, each.reason, each.cause)
