"""Bias correction and learned rounding: make a quantized layer reproduce the outputs of the float layer.

Layers are corrected in the order of the graph, and each sees inputs that carry the errors that remain of all before
it: errors do not add up on the way. Each is judged on inputs that were held back, and taken back where it does harm
(:mod:`embedl_deploy.quantize.accuracy.judging`).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.gradient_hooks import take_gradient_hooks
from embedl_deploy.modules import FusedConv, NamedWeight, fix_parametrized_weights, named_weights
from embedl_deploy.quantize.accuracy.held_back import HeldBack
from embedl_deploy.quantize.accuracy.im2col import grouped, is_supported, samples
from embedl_deploy.quantize.accuracy.judging import Judge, Trial
from embedl_deploy.quantize.accuracy.rounding import Moments, fitted_weight, rounded_weight
from embedl_deploy.quantize.calibration.calibrate import evaluation_mode
from embedl_deploy.quantize.calibration.data import progress_bar
from embedl_deploy.quantize.calibration.paired_run import SideBySide
from embedl_deploy.quantize.grid.operators import expand_scale
from embedl_deploy.quantize.grid.scales import grid_of_weight
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.quantize.reporting.corrections import (
    Correction,
    NotCorrected,
    WhyNotCorrected,
    correction,
    not_corrected,
)

#: Steps in which the mean after an activation is brought to the exact one.
_STEPS = 4
#: No channel's bias moves faster than its mean by more than the inverse of this: of a channel that is hardly ever
#: active the mean says little.
_LEAST_SLOPE = 0.1


def correct_biases(model: fx.GraphModule, inputs: HeldBack, *, progress: bool = True) -> list[Correction]:
    """Give every layer with a quantized weight the bias at which the means of its outputs are the exact ones.

    Means are those of each channel after the module's activation function, because rounding errors of mean zero have
    another mean once they went through a ReLU. (Nagel et al. 2019, section 4.2, correct before it.) Batch norm is
    folded first.

    Args:
        model: Calibrated; changed in place, in parameters of its own.
        inputs: Runs of the model to learn from, and to judge by.
        progress: Show a progress bar, on a terminal.

    Returns:
        What became of each module, and of the model as a whole, last.
    """
    return _correct_all(model, inputs, learn_weights=False, progress=progress)


def learn_rounding(model: fx.GraphModule, inputs: HeldBack, *, progress: bool = True) -> list[Correction]:
    """Choose for every quantized weight the numbers that reproduce its layer's outputs best, and correct biases.

    See :mod:`embedl_deploy.quantize.accuracy.rounding`. Arguments and result as for :func:`correct_biases`; a layer
    whose rounding cannot be learnt has its bias corrected all the same.
    """
    return _correct_all(model, inputs, learn_weights=True, progress=progress)


@torch.no_grad()
def _correct_all(model: fx.GraphModule, inputs: HeldBack, *, learn_weights: bool, progress: bool) -> list[Correction]:
    done: list[tuple[str, str | NotCorrected, str]] = []
    for weight in _quantized_weights(model):
        if isinstance(weight.owner, FusedConv):
            weight.owner.fold_batch_norm()
    fix_parametrized_weights(model)
    judge = Judge(model, inputs)
    runs = SideBySide(model, inputs.learned)
    judged = runs if inputs.judged is inputs.learned else SideBySide(model, inputs.judged, beside=runs)
    what = "learned rounding" if learn_weights else "bias correction"
    with evaluation_mode(model), progress_bar(what, list(model.graph.nodes), shown=progress) as nodes:
        for node in nodes:
            both = (runs,) if judged is runs else (runs, judged)
            for each in both:
                each.compute_exact(node)
            module = runs.module_of(node)
            for weight in [] if module is None else _quantized_weights(module):
                trial = Trial(judged, node, inputs)
                outcome = _correct(node, weight, runs, trial, learn_weights=learn_weights)
                done.append((_where(node, weight), *outcome))
            for each in both:
                each.compute_quantized(node)
                each.forget(node)
    whole, worse = judge.take_back_if_worse(what)
    if worse is not None:
        done = [(where, own if isinstance(own, NotCorrected) else worse, "") for where, own, _ in done]
    return [*(correction(what, where, own, besides=besides) for where, own, besides in done), whole]


def _quantized_weights(module: nn.Module) -> list[NamedWeight]:
    return [weight for weight in named_weights(module) if isinstance(weight.stub.quantizer, Quantizer)]


def _where(node: fx.Node, weight: NamedWeight) -> str:
    return str(node.target) if weight.name == "weight" else f"{node.target} {weight.name}"


def _correct(
    node: fx.Node, weight: NamedWeight, runs: SideBySide, trial: Trial, *, learn_weights: bool
) -> tuple[str | NotCorrected, str]:
    """Correct one weight of a node's module, and the bias beside it; the bias alone, if both do harm.

    Returns:
        What was done, or why nothing was; and what was done besides.
    """
    if weight.operator is None:
        return not_corrected(WhyNotCorrected.NO_SINGLE_OPERATOR), ""
    if not runs.keep_original(weight.operator):
        return not_corrected(WhyNotCorrected.CORRECTED_FOR_FIRST_CALL), ""
    problem = _learn_weight(node, weight, runs) if learn_weights else None
    not_matched, worse = _match_means(node, weight, runs), trial.take_back_if_worse()
    if learn_weights and problem is None and worse is not None:
        problem = worse
        not_matched, worse = _match_means(node, weight, runs), trial.take_back_if_worse()
    if problem is None:
        return worse or ("corrected" if learn_weights or not_matched is None else not_matched), ""
    if worse is not None:
        return problem, f"; its bias: {worse}"
    return problem, "; its bias was corrected" if not_matched is None else ""


def _learn_weight(node: fx.Node, named: NamedWeight, runs: SideBySide) -> NotCorrected | None:
    operator: Any = named.operator
    quantizer = named.stub.quantizer
    assert isinstance(quantizer, Quantizer)  # _quantized_weights has looked
    if not is_supported(operator):
        return not_corrected(WhyNotCorrected.OPERATOR_NOT_SUPPORTED, operator=type(operator).__name__)
    if quantizer.zero_point is not None:
        return not_corrected(WhyNotCorrected.NOT_SYMMETRIC)
    pairs = runs.operator_inputs(node, named)
    if not pairs:
        return not_corrected(WhyNotCorrected.INPUTS_UNKNOWN)
    dtype = operator.weight.dtype
    original = operator.weight.detach().float()  # as the moments are
    weight = grouped(original, operator)
    moments = Moments.empty(weight.shape[0], weight.shape[2], weight)
    for pair in pairs:
        for x, x_rounded in zip(*(samples(x, operator) for x in pair), strict=True):
            moments.add(x.float(), x_rounded.float())
    wanted = fitted_weight(weight, moments)
    quantizer.set_grid(grid_of_weight(wanted.reshape(original.shape), quantizer.config))
    spread = expand_scale(quantizer.scale, original, quantizer.config.scale_axis, quantizer.config.scale_block)
    scale = grouped(spread.expand_as(original), operator)
    square, _ = moments.covariances()
    new = rounded_weight(wanted, square, scale, quantizer.config)
    mean, mean_rounded = (m[:, :, None] for m in moments.means())
    shift = (weight @ mean - new @ mean_rounded).reshape(-1)
    before = operator.weight
    operator.weight = nn.Parameter(new.reshape(original.shape).to(dtype), before.requires_grad)
    take_gradient_hooks(operator.weight, before)
    shift = shift.to(dtype)
    _set_bias(operator, shift if operator.bias is None else operator.bias.detach() + shift)
    return None


def _match_means(node: fx.Node, weight: NamedWeight, runs: SideBySide) -> NotCorrected | None:
    """Move the bias until the mean of each channel of the output is that of the exact output.

    The output is that of the node's module if it has no other weight, else that of the part that has this one. Where
    only the module knows what becomes of the product, the mean of the product itself is matched.
    """
    operator: Any = weight.operator
    module = runs.module_of(node)
    alone = module is not None and len(named_weights(module)) == 1

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
        _set_bias(operator, bias)
        after = _mean_error(outputs(), axis)
        measured = (after - error) / torch.where(step == 0, 1.0, step)
        slope, error = measured.clamp(_LEAST_SLOPE, 1.0), after
        better = error.abs() < best_error.abs()
        best, best_error = torch.where(better, bias, best), torch.where(better, error, best_error)
    _set_bias(operator, best)
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
    _set_bias(operator, shift if bias is None else bias + shift)
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


def _set_bias(operator: Any, bias: torch.Tensor) -> None:
    """Give an operator a bias, which is trained if the one before was; a first one, if the weight is."""
    known = operator.weight if operator.bias is None else operator.bias
    before, operator.bias = operator.bias, nn.Parameter(bias, known.requires_grad)
    if before is not None:
        take_gradient_hooks(operator.bias, before)
