"""SmoothQuant: moves part of the range of activations into the weights that they are multiplied with.

A few channels of a transformer's activations are far larger than the rest, and a scale per tensor serves them alone.
Dividing channel j of the input by s_j, and multiplying column j of the weight by it, changes nothing in float:

    y = (x / s) · (s · Wᵀ),   s_j = max|x_j|^α / max|W_j|^(1−α)

(Xiao et al. 2023, equation 4). All products that read one tensor share s. How much to move, α, differs from layer to
layer: too little leaves outliers, too much puts them into the weights. Unless it is given, it is the one with the least
expected error of the products' outputs, by the formats that they will have. The division is folded into the layer
norm or product before, if every reader of its result is in the group; after a gate, into the product that the
activation is multiplied by. Otherwise it is an operator of its own, which compilers run together with the quantizer
after it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import fx

from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.modules import FusedModule, QuantStub
from embedl_deploy.quantize.accuracy.channel_scaling import divide, scale_columns
from embedl_deploy.quantize.accuracy.migration import best_migration_scale, migration_scale
from embedl_deploy.quantize.accuracy.product_groups import ProductGroup, module_of
from embedl_deploy.quantize.reporting.corrections import (
    Correction,
    NotCorrected,
    WhyNotCorrected,
    correction,
    not_corrected,
)
from embedl_deploy.validation.checked import checked

SMOOTHING = "smoothing"


@checked(error=QuantizationConfigError)
@dataclass(frozen=True)
class SmoothQuantConfig:
    """How activations are smoothed.

    Attributes:
        alpha: Migration strength, 0 to 1: how much of the difficulty goes from the activations into the weights.
            ``None`` finds the best for each tensor, and leaves alone those that smoothing would make worse.
        explicit: Whether a division may become an operator of its own where it cannot be folded.

    Raises:
        QuantizationConfigError: ``alpha`` is out of range.
    """

    alpha: float | None = None
    explicit: bool = True

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise QuantizationConfigError(
                f"SmoothQuantConfig: alpha is {self.alpha!r}; expected a number from 0 to 1, or None to find it."
            )


@dataclass
class Smoothing:
    """A group of products, and what smoothing did to it.

    Attributes:
        group: The group.
        outcome: What was done, in words, or why nothing was.
        scale: What the channels of the tensor were divided by, (C,); ``None`` where nothing was done.
    """

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
        return correction(SMOOTHING, self.group.source.name, self.outcome)

    def places(self, model: fx.GraphModule) -> tuple[list[fx.Node], list[fx.Node]]:
        """The nodes that are changed, in a copy of the model with quantizers, and those whose outputs must stay."""
        nodes = {node.name: node for node in model.graph.nodes}
        readers = [nodes[node.name] for node in self.group.readers]
        before = [node for node in (argument_at(reader, 0) for reader in readers) if isinstance(node, fx.Node)]
        return [*(node for node in before if isinstance(get_module(node), QuantStub)), *readers], readers

    @contextmanager
    def tried(self, model: fx.GraphModule) -> Iterator[None]:
        """Within the block a copy of the model is smoothed at this place; its weights are not put back.

        The division is made by the stub of the tensor. Where it will be folded into a product, the quantized weight of
        that is not changed, which would matter to weights with one scale per tensor only.
        """
        scale = self.scale
        assert scale is not None  # it was applied
        nodes = {node.name: node for node in model.graph.nodes}
        stubs = {_stub_before(nodes[node.name]) for node in self.group.readers}
        for node, formats in self.group.readers.items():
            for name in formats:
                scale_columns(nodes[node.name], name, scale)
        handles = [stub.register_forward_pre_hook(lambda _, args: (args[0] * (1 / scale),)) for stub in stubs]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _stub_before(reader: fx.Node) -> QuantStub:
    """The stub of the first argument of a call, in the graph or in its module."""
    argument, module = argument_at(reader, 0), module_of(reader)
    stub = get_module(argument) if isinstance(argument, fx.Node) else None
    if not isinstance(stub, QuantStub) and isinstance(module, FusedModule):
        stub = module.input_quant_stubs.get(0)
    assert isinstance(stub, QuantStub)  # groups are of inputs that are quantized
    return stub


def smooth(
    model: fx.GraphModule,
    groups: list[ProductGroup],
    config: SmoothQuantConfig,
    declined: Mapping[str, NotCorrected] | None = None,
) -> list[Smoothing]:
    """Smooth the inputs of groups of products.

    Args:
        model: A transformed model without quantizers; changed in place, in parameters of its own.
        groups: Of this model or one that it is a copy of, with statistics
            (:func:`~embedl_deploy.quantize.accuracy.group_statistics.measured_groups`).
        config: Migration strength.
        declined: Groups to leave out, by the names of their tensors, and why.

    Returns:
        Each group, and what was done with it.
    """
    here = [group.copied_to(model, (declined or {}).get(group.source.name)) for group in groups]
    done = [_smooth_group(model, group, config) for group in here]
    model.recompile()
    return done


@torch.no_grad()
def _smooth_group(model: fx.GraphModule, group: ProductGroup, config: SmoothQuantConfig) -> Smoothing:
    if group.problem is not None or group.statistics is None:
        return Smoothing(group, group.problem or not_corrected(WhyNotCorrected.NOT_REACHED))
    if config.alpha is None:
        scale = best_migration_scale(group.statistics, group.config, group.products)
    else:
        scale = migration_scale(group.statistics, group.products, config.alpha)
    if scale is None:
        return Smoothing(group, not_corrected(WhyNotCorrected.NO_GAIN))
    place = divide(model, group, scale, explicit=config.explicit)
    if isinstance(place, NotCorrected):
        return Smoothing(group, place)
    for node, formats in group.readers.items():
        for name in formats:
            scale_columns(node, name, scale)
    return Smoothing(group, place, scale)
