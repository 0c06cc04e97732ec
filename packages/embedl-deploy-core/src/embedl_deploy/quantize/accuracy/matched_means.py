"""Moves a layer's bias until the mean of each channel of its output is that of the float layer."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.gradient_hooks import take_gradient_hooks
from embedl_deploy.modules import NamedWeight, named_weights
from embedl_deploy.quantize.accuracy.im2col import grouped, is_supported, samples
from embedl_deploy.quantize.calibration.paired_run import SideBySide
from embedl_deploy.quantize.reporting.corrections import NotCorrected, WhyNotCorrected, not_corrected

#: Steps in which the mean after an activation is brought to the exact one.
_STEPS = 4
#: No channel's bias moves faster than its mean by more than the inverse of this: of a channel that is hardly ever
#: active the mean says little.
_LEAST_SLOPE = 0.1


def match_means(node: fx.Node, weight: NamedWeight, runs: SideBySide) -> NotCorrected | None:
    """Move the bias until the mean of each channel of the output is that of the exact output.

    The output is that of the node's module if it has no other weight, else that of the part that has this one. Where
    only the module knows what becomes of the product, the mean of the product itself is matched.
    """
    operator: Any = weight.operator
    module = runs.module_of(node)
    alone = module is not None and len(named_weights(module)) == 1
    if not isinstance(operator, (nn.modules.conv._ConvNd, nn.Linear)):
        return not_corrected(WhyNotCorrected.NO_BIAS, operator=type(operator).__name__)

    def outputs() -> list[tuple[torch.Tensor, torch.Tensor]]:
        if not alone:
            return [] if weight.owner is module else runs.outputs_of(node, weight.owner)
        runs.compute_quantized(node)
        return [pair for pair in runs.values(node) if all(isinstance(value, torch.Tensor) for value in pair)]

    channels = operator.out_channels if isinstance(operator, nn.modules.conv._ConvNd) else operator.out_features
    axis = 1 if isinstance(operator, nn.modules.conv._ConvNd) else -1
    values = outputs()
    if not values and not alone:
        return _match_product(node, weight, runs)
    if not values or values[0][0].shape[axis] != channels:
        return not_corrected(WhyNotCorrected.OTHER_CHANNELS)
    bias = operator.weight.new_zeros(channels) if operator.bias is None else operator.bias.detach().clone()
    error, slope = _mean_error(values, axis), torch.ones_like(bias)
    best, best_error = bias, error
    for _ in range(_STEPS):
        step = -error / slope
        bias = bias + step
        set_bias(operator, bias)
        after = _mean_error(outputs(), axis)
        measured = (after - error) / torch.where(step == 0, 1.0, step)
        slope, error = measured.clamp(_LEAST_SLOPE, 1.0), after
        better = error.abs() < best_error.abs()
        best, best_error = torch.where(better, bias, best), torch.where(better, error, best_error)
    set_bias(operator, best)
    return None


def _match_product(node: fx.Node, weight: NamedWeight, runs: SideBySide) -> NotCorrected | None:
    """Move the bias by as much as rounding shifts the mean of the product, before any function."""
    operator: Any = weight.operator
    pairs = runs.operator_inputs(node, weight) if is_supported(operator) else []
    if not pairs:
        return not_corrected(WhyNotCorrected.OUTPUTS_UNKNOWN)
    (exact, bias), rounded = runs.original(operator), weight.stub(operator.weight)
    shift = _mean_product(exact, operator, [x for x, _ in pairs])
    shift = shift - _mean_product(rounded, operator, [x for _, x in pairs])
    set_bias(operator, shift if bias is None else bias + shift)
    return None


def _mean_product(weight: torch.Tensor, operator: Any, inputs: Iterable[torch.Tensor]) -> torch.Tensor:
    """The mean of each channel of the product with inputs of the operator, (C,)."""
    parts = [part.float() for x in inputs for part in samples(x, operator)]
    mean = torch.cat(parts, -1).mean(-1)
    return (grouped(weight, operator) @ mean[..., None]).flatten()


def _mean_error(values: Iterable[tuple[torch.Tensor, torch.Tensor]], axis: int) -> torch.Tensor:
    """By how much the mean of each channel is too high, (C,)."""
    total, count = torch.zeros(()), 0
    for exact, quantized in values:
        difference = (quantized - exact).movedim(axis, 0).flatten(1)
        total = total.to(difference) + difference.sum(1)
        count += difference.shape[1]
    return total / count


def set_bias(operator: Any, bias: torch.Tensor) -> None:
    """Give an operator a bias, which is trained if the one before was; a first one, if the weight is."""
    known = operator.weight if operator.bias is None else operator.bias
    before, operator.bias = operator.bias, nn.Parameter(bias, known.requires_grad)
    if before is not None:
        take_gradient_hooks(operator.bias, before)
