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

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.quantize.accuracy.group_scaling import GroupScaling, scale_groups
from embedl_deploy.quantize.accuracy.migration import ChannelStatistics, best_migration_scale, migration_scale
from embedl_deploy.quantize.accuracy.product_groups import ProductGroup
from embedl_deploy.quantize.reporting.corrections import NotCorrected
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


def smooth(
    model: fx.GraphModule,
    groups: list[ProductGroup],
    config: SmoothQuantConfig,
    declined: Mapping[str, NotCorrected] | None = None,
) -> list[GroupScaling]:
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

    def chosen(group: ProductGroup, statistics: ChannelStatistics) -> torch.Tensor | None:
        assert group.config is not None  # of groups whose tensor will be quantized
        if config.alpha is None:
            return best_migration_scale(statistics, group.config, group.products)
        return migration_scale(statistics, group.products, config.alpha)

    return scale_groups(model, groups, chosen, SMOOTHING, explicit=config.explicit, declined=declined or {})
