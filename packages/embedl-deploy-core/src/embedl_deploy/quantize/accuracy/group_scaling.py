"""Divides the inputs of groups of products by scales, and multiplies the columns of their weights by them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.modules import FusedModule, QuantStub
from embedl_deploy.quantize.accuracy.channel_scaling import divide, scale_columns
from embedl_deploy.quantize.accuracy.migration import ChannelStatistics
from embedl_deploy.quantize.accuracy.product_groups import ProductGroup, module_of
from embedl_deploy.quantize.reporting.corrections import (
    Correction,
    NotCorrected,
    WhyNotCorrected,
    correction,
    not_corrected,
)

#: What the channels of a group's tensor are to be divided by, (C,); ``None`` if nothing is gained.
Choice = Callable[[ProductGroup, ChannelStatistics], torch.Tensor | None]


@dataclass
class GroupScaling:
    """A group of products, and what was done to it.

    Attributes:
        what: The method.
        group: The group.
        outcome: What was done, in words, or why nothing was.
        scale: What the channels of the tensor were divided by, (C,); ``None`` where nothing was done.
    """

    what: str
    group: ProductGroup
    outcome: str | NotCorrected
    scale: torch.Tensor | None = None

    @property
    def where(self) -> list[str]:
        """The tensor, for the report."""
        return [self.group.source.name]

    @property
    def applied(self) -> bool:
        """Whether something was changed."""
        return self.scale is not None

    def told(self) -> Correction:
        """What became of it."""
        return correction(self.what, self.group.source.name, self.outcome)

    def places(self, model: fx.GraphModule) -> tuple[list[fx.Node], list[fx.Node]]:
        """The nodes that are changed, in a copy of the model with quantizers, and those whose outputs must stay."""
        nodes = {node.name: node for node in model.graph.nodes}
        readers = [nodes[node.name] for node in self.group.readers]
        before = [node for node in (argument_at(reader, 0) for reader in readers) if isinstance(node, fx.Node)]
        return [*(node for node in before if isinstance(get_module(node), QuantStub)), *readers], readers

    @contextmanager
    def tried(self, model: fx.GraphModule) -> Iterator[None]:
        """Within the block a copy of the model is scaled at this place; its weights are not put back.

        The division is made by the stub of the tensor, or, where it stays in float, before each reader. Where it will
        be folded into a product, the quantized weight of that is not changed, which would matter to weights with one
        scale per tensor only.
        """
        scale = self.scale
        assert scale is not None  # it was applied
        nodes = {node.name: node for node in model.graph.nodes}
        readers = [nodes[node.name] for node in self.group.readers]
        quantized = self.group.config is not None
        dividing: set[nn.Module] = {_stub_before(node) if quantized else module_of(node) for node in readers}
        for node, formats in self.group.readers.items():
            for name in formats:
                scale_columns(nodes[node.name], name, scale)

        def divided(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return args[0] * (1 / scale).to(args[0].dtype), *args[1:]

        with ExitStack() as hooks:
            for module in dividing:
                hooks.callback(module.register_forward_pre_hook(divided).remove)
            yield


def _stub_before(reader: fx.Node) -> QuantStub:
    """The stub of the first argument of a call, in the graph or in its module."""
    argument, module = argument_at(reader, 0), module_of(reader)
    stub = get_module(argument) if isinstance(argument, fx.Node) else None
    if not isinstance(stub, QuantStub) and isinstance(module, FusedModule):
        stub = module.input_quant_stubs.get(0)
    assert isinstance(stub, QuantStub)  # the input is quantized
    return stub


def scale_groups(
    model: fx.GraphModule,
    groups: list[ProductGroup],
    choice: Choice,
    what: str,
    *,
    explicit: bool,
    declined: Mapping[str, NotCorrected],
) -> list[GroupScaling]:
    """Scale the inputs of groups of products.

    Args:
        model: A transformed model without quantizers; changed in place, in parameters of its own.
        groups: Of this model or one that it is a copy of, with statistics.
        choice: Chooses the scales of a group.
        what: The method, for the report.
        explicit: Whether a division may become an operator of its own where it cannot be folded.
        declined: Groups to leave out, by the names of their tensors, and why.

    Returns:
        Each group, and what was done with it.
    """
    here = [group.copied_to(model, declined.get(group.source.name)) for group in groups]
    done = [_scale_group(model, group, choice, what, explicit=explicit) for group in here]
    model.recompile()
    return done


@torch.no_grad()
def _scale_group(
    model: fx.GraphModule, group: ProductGroup, choice: Choice, what: str, *, explicit: bool
) -> GroupScaling:
    if group.problem is not None or group.statistics is None:
        return GroupScaling(what, group, group.problem or not_corrected(WhyNotCorrected.NOT_REACHED))
    scale = choice(group, group.statistics)
    if scale is None:
        return GroupScaling(what, group, not_corrected(WhyNotCorrected.NO_GAIN))
    place = divide(model, group, scale, explicit=explicit)
    if isinstance(place, NotCorrected):
        return GroupScaling(what, group, place)
    for node, formats in group.readers.items():
        for name in formats:
            scale_columns(node, name, scale)
    return GroupScaling(what, group, place, scale)
