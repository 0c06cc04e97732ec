"""Activation-aware scaling (AWQ): gives the weights that matter most finer steps.

Rounding a weight w of a product costs its output as much as w's input x is large. Multiplying column j of the weight by
s_j before it is rounded, and dividing channel j of the input by it, changes nothing in float, and makes the steps of
that column finer by s_j, as long as the ranges that it shares with other columns do not grow:

    y = (x / s) · Q(s · W)ᵀ,   s_j = r_j^α / √(max r^α · min r^α),   r_j = √mean x_j²

(Lin et al. 2023, section 3.2; they take the mean of |x_j|). All products that read one tensor share s. α is the one of
21 with the least expected error of the products' outputs, with each weight rounded as it will be. It is for weights
whose input stays in float; for quantized inputs SmoothQuant weighs both sides. The division is folded or made as there
(:mod:`embedl_deploy.quantize.accuracy.smoothing`).

Then the range of each block or channel of a weight is searched for the least error of the outputs
(:mod:`embedl_deploy.quantize.accuracy.clipping`; the same paper's implementation calls it clipping).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.quantize.accuracy.group_scaling import GroupScaling, scale_groups
from embedl_deploy.quantize.accuracy.migration import STRENGTHS, ChannelStatistics, Reader, expected_error
from embedl_deploy.quantize.accuracy.product_groups import ProductGroup
from embedl_deploy.quantize.reporting.corrections import NotCorrected
from embedl_deploy.validation.checked import checked

AWQ = "activation-aware scaling"


@checked(error=QuantizationConfigError)
@dataclass(frozen=True)
class AwqConfig:
    """How weights whose input stays in float are scaled and clipped.

    Attributes:
        alpha: How much the scales follow the inputs, 0 to 1. ``None`` finds the best for each tensor, and leaves alone
            those that scaling would make worse.
        explicit: Whether a division may become an operator of its own where it cannot be folded.
        clip: Whether ranges of weights are searched by what they do to the outputs.

    Raises:
        QuantizationConfigError: ``alpha`` is out of range.
    """

    alpha: float | None = None
    explicit: bool = True
    clip: bool = True

    def __post_init__(self) -> None:
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise QuantizationConfigError(
                f"AwqConfig: alpha is {self.alpha!r}; expected a number from 0 to 1, or None to find it."
            )


def awq_scale(statistics: ChannelStatistics, alpha: float) -> torch.Tensor:
    """The scales s of a strength α, (C,), float32; 1 for channels that are always zero."""
    reach = (statistics.squares / statistics.count).sqrt().float()
    alive = reach > 0
    powers = torch.where(alive, reach, 1.0) ** alpha
    if not bool(alive.any()):
        return powers
    middle = (powers[alive].max() * powers[alive].min()).sqrt()
    return torch.where(alive, powers / middle, 1.0)


def best_awq_scale(statistics: ChannelStatistics, readers: Sequence[Reader]) -> torch.Tensor | None:
    """The scale with the least expected error, or ``None`` if none is better than none.

    Args:
        statistics: Of the tensor.
        readers: The products that read it.
    """
    ones = torch.ones_like(statistics.largest)
    best, least = None, expected_error(statistics, None, readers, ones)
    for alpha in STRENGTHS.tolist():
        scale = awq_scale(statistics, alpha).to(ones)
        error = expected_error(statistics, None, readers, scale)
        if error < least:
            best, least = scale, error
    return best


def scale_weights(
    model: fx.GraphModule,
    groups: list[ProductGroup],
    config: AwqConfig,
    declined: Mapping[str, NotCorrected] | None = None,
) -> list[GroupScaling]:
    """Scale the weights of groups of products whose inputs stay in float.

    Args:
        model: A transformed model without quantizers; changed in place, in parameters of its own.
        groups: Of this model or one that it is a copy of, with statistics.
        config: How.
        declined: Groups to leave out, by the names of their tensors, and why.

    Returns:
        Each group, and what was done with it.
    """

    def chosen(group: ProductGroup, statistics: ChannelStatistics) -> torch.Tensor | None:
        if config.alpha is None:
            return best_awq_scale(statistics, group.products)
        return awq_scale(statistics, config.alpha).to(statistics.largest)

    return scale_groups(model, groups, chosen, AWQ, explicit=config.explicit, declined=declined or {})
