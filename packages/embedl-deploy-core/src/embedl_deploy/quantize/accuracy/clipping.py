"""Searches the ranges of weights by what rounding does to the outputs of their product.

The largest weights of a block decide the steps of all others in it. A smaller range cuts them off, which costs as much
as their inputs are large, and makes the steps finer. For each scale of a weight, the range is the one with the least

    Σ_j e_j² · var x_j + (Σ_j e_j · mean x_j)²,   e = Q(w) − w

the expected squared error of what the block or channel adds to the output, with x the inputs as they are in the
quantized model, and independent of each other. (Lin et al. 2023 search the same ranges by the error of the output
itself, in the implementation of their paper.) Ranges are searched as :attr:`CalibrationMethod.MSE` does.
"""

import torch
from torch import fx, nn

from embedl_deploy.modules import NamedWeight
from embedl_deploy.quantize.accuracy.held_back import HeldBack
from embedl_deploy.quantize.accuracy.judging import Judge, Trial
from embedl_deploy.quantize.accuracy.layer_by_layer import layer_by_layer
from embedl_deploy.quantize.calibration.paired_run import SideBySide
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

CLIPPING = "clipping"


@torch.no_grad()
def clip_ranges(model: fx.GraphModule, inputs: HeldBack, *, progress: bool = True) -> list[Correction]:
    """Search the range of every quantized weight of a product.

    Args:
        model: Calibrated; scales are changed in place.
        inputs: Runs of the model to learn from, and to judge by.
        progress: Show a progress bar, on a terminal.

    Returns:
        What became of each weight, and of the model as a whole, last.
    """
    judge = Judge(model, inputs)
    done = layer_by_layer(model, inputs, _clip, title=CLIPPING, progress=progress)
    whole, worse = judge.take_back_if_worse(CLIPPING)
    if worse is not None:
        done = [(where, own if isinstance(own, NotCorrected) else worse, "") for where, own, _ in done]
    return [*(correction(CLIPPING, where, own) for where, own, _ in done), whole]


def _clip(node: fx.Node, weight: NamedWeight, runs: SideBySide, trial: Trial) -> tuple[str | NotCorrected, str]:
    """Search the range of one weight; what was done, or why nothing was."""
    operator, quantizer = weight.operator, weight.stub.quantizer
    assert isinstance(quantizer, Quantizer)  # of those that are corrected
    if not isinstance(operator, nn.Linear):
        return not_corrected(WhyNotCorrected.NO_PRODUCT, operator=type(operator).__name__), ""
    if quantizer.zero_point is not None:
        return not_corrected(WhyNotCorrected.NOT_SYMMETRIC), ""
    if not runs.keep_original(operator):
        return not_corrected(WhyNotCorrected.CORRECTED_FOR_FIRST_CALL), ""
    pairs = runs.operator_inputs(node, weight)
    if not pairs:
        return not_corrected(WhyNotCorrected.INPUTS_UNKNOWN), ""
    value = operator.weight.detach()
    before = quantizer.scale.detach().clone()
    quantizer.set_grid(grid_of_weight(value, quantizer.config, input_moments([x for _, x in pairs])))
    changed = int((quantizer.scale != before).sum())
    worse = trial.take_back_if_worse()
    return worse or f"{changed} of {before.numel()} ranges", ""


def input_moments(inputs: list[torch.Tensor]) -> InputMoments:
    """Mean and variance of each channel of some tensors (..., C)."""
    rows = torch.cat([x.flatten(0, -2).float() for x in inputs])
    variance, mean = torch.var_mean(rows, 0, correction=0)
    return InputMoments(mean, variance)
