"""Applies a method that scales channels to a copy of a model, and judges it place by place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import fx

from embedl_deploy.errors import QuantizationError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.quantize.accuracy.held_back import HeldBack
from embedl_deploy.quantize.accuracy.scaling_methods import Method
from embedl_deploy.quantize.accuracy.scaling_trials import Scaling, try_scalings
from embedl_deploy.quantize.calibration.calibrate import find_grids
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.placing.placement import place
from embedl_deploy.quantize.reporting.corrections import THE_MODEL, Correction, NotCorrected, correction


class Scaled(NamedTuple):
    """A copy of a model to which a method was applied.

    Attributes:
        model: The copy, without what does harm at its place.
        told: What became of each place.
        tried: What was changed and tried; what does harm is among it.
        worse: Why some of that was left out, by place.
        before: A copy without any, with quantizers, calibrated on the recorded samples; ``None`` if nothing was tried.
    """

    model: fx.GraphModule
    told: list[Correction]
    tried: Sequence[Scaling] = ()
    worse: Mapping[str, NotCorrected] = {}
    before: fx.GraphModule | None = None


def scaled_by_places(
    method: Method,
    model: fx.GraphModule,
    decisions: list[Decision],
    held_back: HeldBack,
    copied: Callable[[Any], Any] = deep_copy,
    before: fx.GraphModule | None = None,
) -> Scaled:
    """Apply a method to a copy of a model, and leave out what makes the error of its own place larger.

    Args:
        method: What scales.
        model: Transformed, without quantizers. Not modified.
        decisions: What will be quantized.
        held_back: Whose runs to judge by.
        copied: How to copy a model; parameters may be shared, because none is written into.
        before: The model with quantizers, calibrated on the recorded samples, if it is there already.
    """
    changed = copied(model)
    done = method(changed, {})
    if not done.scalings or not held_back.judged:
        return Scaled(changed, done.told)
    calibrated = calibrated_copy(model, decisions, held_back) if before is None else before
    if isinstance(calibrated, QuantizationError):
        return Scaled(changed, [*done.told, not_judged(method.what, calibrated)])
    worse, tried = try_scalings(calibrated, done.scalings, held_back), done.scalings
    if worse:
        changed = copied(model)
        done = method(changed, worse)
    return Scaled(changed, done.told, tried, worse, calibrated)


def calibrated_copy(
    model: fx.GraphModule, decisions: list[Decision], held_back: HeldBack
) -> fx.GraphModule | QuantizationError:
    """A copy of a model with quantizers and ranges from the recorded samples; or why these give it none."""
    quantized = place(model, decisions, "")
    try:
        find_grids(quantized, held_back.run_all, progress=False)
    except QuantizationError as error:  # they may not reach every tensor, as all data does
        return error
    return quantized


def not_judged(what: str, error: QuantizationError) -> Correction:
    """What the report says of a method whose gain could not be measured."""
    return correction(what, THE_MODEL, f"not judged, because the first samples do not calibrate the model. {error}")
