"""Bias correction and learned rounding: make a quantized layer reproduce the outputs of the float layer.

Layers are corrected in the order of the graph, and each sees inputs that carry the errors that remain of all before
it: errors do not add up on the way. Each is judged on inputs that were held back, and taken back where it does harm
(:mod:`embedl_deploy.quantize.accuracy.judging`).
"""

from functools import partial
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.gradient_hooks import take_gradient_hooks
from embedl_deploy.modules import FusedConv, NamedWeight, fix_parametrized_weights
from embedl_deploy.quantize.accuracy.held_back import HeldBack
from embedl_deploy.quantize.accuracy.im2col import grouped, is_supported, samples
from embedl_deploy.quantize.accuracy.judging import BY_LAYERS, Judge, Trial
from embedl_deploy.quantize.accuracy.layer_by_layer import layer_by_layer, quantized_weights
from embedl_deploy.quantize.accuracy.matched_means import match_means, set_bias
from embedl_deploy.quantize.accuracy.rounding import Moments, fitted_weight, rounded_weight
from embedl_deploy.quantize.calibration.paired_run import SideBySide
from embedl_deploy.quantize.grid.operators import expand_scale
from embedl_deploy.quantize.grid.scales import grid_of_weight
from embedl_deploy.quantize.grid.weight_search import InputMoments
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.quantize.reporting.corrections import (
    Correction,
    NotCorrected,
    WhyNotCorrected,
    correction,
    not_corrected,
)

_ROUNDING, _BIASES = "learned rounding", "bias correction"


def correct_biases(
    model: fx.GraphModule, inputs: HeldBack, *, judged_by: str = "model", progress: bool = True
) -> list[Correction]:
    """Give every layer with a quantized weight the bias at which the means of its outputs are the exact ones.

    Means are those of each channel after the module's activation function, because rounding errors of mean zero have
    another mean once they went through a ReLU. (Nagel et al. 2019, section 4.2, correct before it.) Batch norm is
    folded first.

    Args:
        model: Calibrated; changed in place, in parameters of its own.
        inputs: Runs of the model to learn from, and to judge by.
        judged_by: ``"layers"`` leaves it at the layers.
        progress: Show a progress bar, on a terminal.

    Returns:
        What became of each module, and of the model as a whole, last, if that was judged.
    """
    return _correct_all(model, inputs, learn_weights=False, judged_by=judged_by, progress=progress)


def learn_rounding(
    model: fx.GraphModule, inputs: HeldBack, *, clip: bool = False, judged_by: str = "model", progress: bool = True
) -> list[Correction]:
    """Choose for every quantized weight the numbers that reproduce its layer's outputs best, and correct biases.

    See :mod:`embedl_deploy.quantize.accuracy.rounding`. Arguments and result as for :func:`correct_biases`; a layer
    whose rounding cannot be learnt has its bias corrected all the same. With ``clip``, ranges of products' weights are
    first searched for the least error of their outputs (:mod:`embedl_deploy.quantize.accuracy.clipping`).
    """
    return _correct_all(model, inputs, learn_weights=True, clip=clip, judged_by=judged_by, progress=progress)


def made_plain(model: fx.GraphModule) -> None:
    """Fold batch norms into quantized weights, and compute parametrized ones once: corrections change plain weights."""
    for weight in quantized_weights(model):
        if isinstance(weight.owner, FusedConv):
            weight.owner.fold_batch_norm()
    fix_parametrized_weights(model)


@torch.no_grad()
def _correct_all(
    model: fx.GraphModule,
    inputs: HeldBack,
    *,
    learn_weights: bool,
    clip: bool = False,
    judged_by: str,
    progress: bool,
) -> list[Correction]:
    made_plain(model)
    what = _ROUNDING if learn_weights else _BIASES
    correct = partial(_correct, learn_weights=learn_weights, clip=clip)
    if judged_by == BY_LAYERS:
        found = layer_by_layer(model, inputs, correct, title=what, progress=progress)
        return [correction(what, where, own, besides=besides) for where, own, besides in found]
    judge = Judge(model, inputs)
    done = layer_by_layer(model, inputs, correct, title=what, progress=progress)
    whole, worse = judge.take_back_if_worse(what)
    if worse is None:
        return [*(correction(what, where, own, besides=besides) for where, own, besides in done), whole]
    done = [(where, own if isinstance(own, NotCorrected) else worse, "") for where, own, _ in done]
    if learn_weights:
        correct = partial(_correct, learn_weights=False, clip=False)
        biases = layer_by_layer(model, inputs, correct, title=_BIASES, progress=progress)
        alone, harm = judge.take_back_if_worse(_BIASES)
        if harm is None:
            pairs = zip(done, biases, strict=True)
            done = [(where, own, "" if bias == own else _besides(bias)) for (where, own, _), (_, bias, _) in pairs]
        whole = correction(what, whole.where, worse, besides=f"; {_BIASES} alone: {alone.outcome}")
    return [*(correction(what, where, own, besides=besides) for where, own, besides in done), whole]


def _besides(bias: str | NotCorrected) -> str:
    """What became of the bias of a layer whose rounding was not learned, in words."""
    return f"; its bias: {bias}" if isinstance(bias, NotCorrected) else "; its bias was corrected"


def _correct(
    node: fx.Node, weight: NamedWeight, runs: SideBySide, trial: Trial, *, learn_weights: bool, clip: bool
) -> tuple[str | NotCorrected, str]:
    """Correct one weight of a node's module, and the bias beside it; the bias alone, if both do harm.

    Returns:
        What was done, or why nothing was; and what was done besides.
    """
    if weight.operator is None:
        return not_corrected(WhyNotCorrected.NO_SINGLE_OPERATOR), ""
    if not runs.keep_original(weight.operator):
        return not_corrected(WhyNotCorrected.CORRECTED_FOR_FIRST_CALL), ""
    problem = _learn_weight(node, weight, runs, clip=clip) if learn_weights else None
    not_matched, worse = match_means(node, weight, runs), trial.take_back_if_worse()
    if learn_weights and problem is None and worse is not None:
        problem = worse
        not_matched, worse = match_means(node, weight, runs), trial.take_back_if_worse()
    if problem is None:
        return worse or ("corrected" if learn_weights or not_matched is None else not_matched), ""
    return problem, _besides(worse or "corrected") if worse is not None or not_matched is None else ""


def _learn_weight(node: fx.Node, named: NamedWeight, runs: SideBySide, *, clip: bool) -> NotCorrected | None:
    operator: Any = named.operator
    quantizer = named.stub.quantizer
    assert isinstance(quantizer, Quantizer)  # quantized_weights has looked
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
    square, _ = moments.covariances()
    inputs = None  # with a bias that makes up for the means, only what the inputs vary by counts
    if clip and isinstance(operator, nn.Linear):
        inputs = InputMoments(torch.zeros_like(square[0, 0]), square[0].diagonal())
    quantizer.set_grid(grid_of_weight(wanted.reshape(original.shape), quantizer.config, inputs))
    spread = expand_scale(quantizer.scale, original, quantizer.config.scale_axis, quantizer.config.scale_block)
    scale = grouped(spread.expand_as(original), operator)
    new = rounded_weight(wanted, square, scale, quantizer.config)
    mean, mean_rounded = (m[:, :, None] for m in moments.means())
    shift = (weight @ mean - new @ mean_rounded).reshape(-1)
    before = operator.weight
    operator.weight = nn.Parameter(new.reshape(original.shape).to(dtype), before.requires_grad)
    take_gradient_hooks(operator.weight, before)
    shift = shift.to(dtype)
    set_bias(operator, shift if operator.bias is None else operator.bias.detach() + shift)
    return None
