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

from dataclasses import dataclass, replace

import torch
from torch import fx

from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.numerics.selectors import Selector
from embedl_deploy.quantize.accuracy.channel_scaling import divide, scale_columns
from embedl_deploy.quantize.accuracy.migration import best_migration_scale, migration_scale
from embedl_deploy.quantize.accuracy.product_groups import ProductGroup, find_groups, module_of, products_of
from embedl_deploy.quantize.accuracy.readers import ReaderWatch
from embedl_deploy.quantize.calibration.calibrate import buffers_kept, evaluation_mode
from embedl_deploy.quantize.calibration.data import CalibrationData, run_data
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.reporting.corrections import (
    Correction,
    NotCorrected,
    WhyNotCorrected,
    correction,
    not_corrected,
)
from embedl_deploy.validation.checked import checked

_WHAT = "smoothing"


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
    decisions: list[Decision],
    data: CalibrationData,
    config: SmoothQuantConfig,
    exceptions: tuple[Selector, ...] = (),
    *,
    progress: bool = True,
) -> list[Correction]:
    """Smooth the inputs of all products of which both input and weight are to be quantized.

    Args:
        model: A transformed model without quantizers; changed in place, in parameters of its own.
        decisions: What will be quantized, on this model or the one that it is a copy of.
        data: As for :func:`calibrate`; read once.
        config: Migration strength.
        exceptions: Selectors of layer norms and products to leave out.
        progress: Show a progress bar, on a terminal.

    Returns:
        What was done with each group.
    """
    groups = find_groups(model, decisions, exceptions)
    _measure(model, groups, data, progress=progress)
    done = [correction(_WHAT, group.source.name, _smooth_group(model, group, config)) for group in groups]
    model.recompile()
    return done


@torch.no_grad()
def _measure(model: fx.GraphModule, groups: list[ProductGroup], data: CalibrationData, *, progress: bool) -> None:
    """Find the largest magnitude of each channel of each group's input, and which products read it."""
    watches = [(group, node, _watch(group, node)) for group in groups for node in group.readers]
    try:
        with evaluation_mode(model), buffers_kept(model):
            run_data(model, data, progress=progress)
    finally:
        for _, _, watch in watches:
            watch.remove()
    for group, node, watch in watches:
        group.readers[node] = {name: group.readers[node][name] for name in group.readers[node] if name in watch.reads}
        problem = watch.problem
        if not watch.reads:
            problem = not_corrected(WhyNotCorrected.NOT_REACHED)
        if group.problem is None and problem is not None:
            group.problem = problem if len(group.readers) == 1 else replace(problem, reader=str(node.target))


def _watch(group: ProductGroup, node: fx.Node) -> ReaderWatch:
    products = {name: product for name, product in products_of(node).items() if name in group.readers[node]}
    first = next(iter(group.readers))
    return ReaderWatch(module_of(node), products, group.add if node is first else lambda _: None)


@torch.no_grad()
def _smooth_group(model: fx.GraphModule, group: ProductGroup, config: SmoothQuantConfig) -> str | NotCorrected:
    if group.problem is not None or group.statistics is None:
        return group.problem or not_corrected(WhyNotCorrected.NOT_REACHED)
    if config.alpha is None:
        scale = best_migration_scale(group.statistics, group.config, group.products)
    else:
        scale = migration_scale(group.statistics, group.products, config.alpha)
    if scale is None:
        return not_corrected(WhyNotCorrected.NO_GAIN)
    place = divide(model, group, scale, explicit=config.explicit)
    if not isinstance(place, NotCorrected):
        for node, formats in group.readers.items():
            for name in formats:
                scale_columns(node, name, scale)
    return place
