"""Scales the channels of a tensor, and the columns of the weights that it is multiplied with inversely.

The scale is folded into the operator that computes the tensor, if it can be, and is an operator of its own otherwise.
"""

import torch
from torch import fx

from embedl_deploy.graph.arguments import set_argument
from embedl_deploy.graph.edit import add_call
from embedl_deploy.graph.lookup import get_module, has_hooks
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.uses import times_read
from embedl_deploy.modules import ChannelScale, FusedModule, with_parameters
from embedl_deploy.modules.device import device_of
from embedl_deploy.quantize.accuracy.product_groups import ProductGroup, module_of, node_before, products_of
from embedl_deploy.quantize.reporting.corrections import NotCorrected, WhyNotCorrected, not_corrected


def divide(model: fx.GraphModule, group: ProductGroup, scale: torch.Tensor, *, explicit: bool) -> str | NotCorrected:
    """Divide the group's input; returns where that was done, in words, or why it was not."""
    before, single = node_before(group.source)
    alone = set(group.source.users) == set(group.readers) and times_read(group.source) == len(group.readers)
    problem = _fold(model, before, 1 / scale) if alone and single else "other operators read its output"
    if problem is None:
        return f"folded into {before.target}"
    if alone and single and operation(before) == "mul":
        for factor in _factors_of(before):
            if _fold(model, factor, 1 / scale) is None:
                return f"folded into {factor.target}"
    if not explicit:
        return not_corrected(WhyNotCorrected.CANNOT_BE_FOLDED, node=before.name, reason=problem)
    path = insert_scale(model, group.source, list(group.readers), 1 / scale)
    return f"by {path}, because it cannot be folded into {before.name} ({problem})"


def _fold(model: fx.GraphModule, node: fx.Node, factors: torch.Tensor) -> str | None:
    """Multiply what a node gives by factors, in the parameters of its module; returns why it cannot be done."""
    module = get_module(node)
    if node.op == "call_module" and not _called_once(model, node):
        return "other operators read its output"
    if module is not None and any(has_hooks(part) for part in module.modules()):
        return "it has hooks, which may not let factors through"
    return module.scale_outputs(factors) if isinstance(module, FusedModule) else "it is not a fused module"


def _factors_of(product: fx.Node) -> list[fx.Node]:
    """The nodes that compute the factors of a product and nothing else, as many channels as it has; the last first.

    A gated layer multiplies an activation, which lets no factors through, by a product, which does.
    """
    found, channels = [], _channels(product)
    for value in reversed(product.all_input_nodes):
        before, single = node_before(value)
        if single and times_read(value) == 1 and channels is not None and _channels(value) == channels:
            found.append(before)
    return found


def _channels(node: fx.Node) -> int | None:
    """The size of the last axis, where it is known."""
    shape = shape_of(node)
    return shape[-1] if shape else None


def insert_scale(model: fx.GraphModule, source: fx.Node, readers: list[fx.Node], factors: torch.Tensor) -> str:
    """Multiply the channels of the first argument of some nodes, which is ``source``; returns the multiplier's path."""
    first = min(readers, key=list(model.graph.nodes).index)
    with model.graph.inserting_before(first):
        node = add_call(model, f"{source.name}_smooth", ChannelScale(factors.to(device_of(model))), source)
    for reader in readers:
        set_argument(reader, 0, node)
    return str(node.target)


def _called_once(model: fx.GraphModule, node: fx.Node) -> bool:
    return [other.target for other in model.graph.nodes if other.op == node.op].count(node.target) == 1


def scale_columns(node: fx.Node, name: str, scale: torch.Tensor) -> None:
    """Multiply the columns of the weight that goes by ``name`` at the call ``node`` by ``scale``, (C,)."""
    operator = products_of(node)[name]
    scaled = with_parameters(operator, operator.weight * scale, operator.bias)
    for owner in list(module_of(node).modules()):
        owner._modules.update({key: scaled for key, part in owner._modules.items() if part is operator})
