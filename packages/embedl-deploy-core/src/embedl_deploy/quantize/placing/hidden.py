"""Operators in float inside fused modules that have quantization points."""

from collections.abc import Iterator

from torch import fx, nn

from embedl_deploy.graph.lookup import get_module
from embedl_deploy.modules import FusedModule, InnerProduct, products_without_place, reason_of_part, weights_besides
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.reporting.causes import declared_by
from embedl_deploy.quantize.reporting.report import Uncovered

_WEIGHT = "the module declares no quantization point for its weight"
_INPUT = "the module declares no quantization point for its input, which the module computes itself"


def hidden_parts(model: fx.GraphModule, decisions: list[Decision]) -> Iterator[Uncovered]:
    """Operators and products without a quantization point, inside modules that have points.

    Args:
        model: A transformed model.
        decisions: The decisions about its points.

    Yields:
        Path of the part, operator or operation, reason.
    """
    weights: dict[str, set[str]] = {decision.point.node.name: set() for decision in decisions}
    for decision in decisions:
        if decision.point.weight is not None:
            weights[decision.point.node.name].add(decision.point.weight.path)
    traced: dict[object, list[InnerProduct]] = {}
    for node in model.graph.nodes:
        module = get_module(node) if node.op == "call_module" and node.name in weights else None
        if module is None:
            continue
        told = set()
        for path, operator, reason in weights_besides(module, weights[node.name]):
            told.add(path)
            cause = declared_by(reason_of_part(module, path), reason)
            yield Uncovered.because(_joined(node, path), type(operator).__name__, cause)
        if not isinstance(module, FusedModule):
            continue
        structure = _structure(module)
        if structure not in traced:
            traced[structure] = products_without_place(module)
        for product in traced[structure]:
            if product.path not in told:
                cause = declared_by(reason_of_part(module, product.path), _WEIGHT if product.of_parameter else _INPUT)
                yield Uncovered.because(_joined(node, product.path), product.product, cause)


def _structure(module: nn.Module) -> object:
    """Equal for modules whose ``forward`` computes the same products: it is traced once for all of them."""
    return tuple((path, type(part)) for path, part in module.named_modules())


def _joined(node: fx.Node, path: str) -> str:
    return ".".join(filter(None, (str(node.target), path)))
