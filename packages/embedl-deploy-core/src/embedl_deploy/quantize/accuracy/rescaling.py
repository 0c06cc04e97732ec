"""Scales channels in a model, judges that on samples that were held back, and leaves out what does harm there."""

import math
from collections.abc import Mapping, Sequence

from torch import fx

from embedl_deploy.distributed.ranks import ALONE, Ranks
from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.numerics.selectors import Selector
from embedl_deploy.quantize.accuracy.by_places import calibrated_copy, not_judged, scaled_by_places
from embedl_deploy.quantize.accuracy.group_statistics import measured_groups
from embedl_deploy.quantize.accuracy.held_back import HeldBack, hold_back
from embedl_deploy.quantize.accuracy.judging import BY_LAYERS, Score
from embedl_deploy.quantize.accuracy.product_groups import ProductGroup
from embedl_deploy.quantize.accuracy.scaling_methods import Asked, Method
from embedl_deploy.quantize.accuracy.scaling_trials import Scaling
from embedl_deploy.quantize.accuracy.some_samples import some_samples
from embedl_deploy.quantize.calibration.data import CalibrationData
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.reporting.corrections import (
    Correction,
    NotCorrected,
    WhyNotCorrected,
    not_corrected,
)

#: Stands for a reason while others are tried.
_NOT_TRIED = not_corrected(WhyNotCorrected.NO_GAIN)


def rescale(
    model: fx.GraphModule,
    decisions: list[Decision],
    data: CalibrationData,
    asked: Asked,
    *,
    exceptions: tuple[Selector, ...] = (),
    judged_by: str = "model",
    progress: bool = True,
    ranks: Ranks = ALONE,
) -> tuple[fx.GraphModule, list[Correction], CalibrationData]:
    """Scale channels in a copy of a model, by equalization, smoothing and activation-aware scaling, and judge each.

    Each place, or chain of places, is tried alone (:func:`try_scalings`); then the model with all that did no harm is
    compared with the one without, by the SQNR of the outputs, and what makes it lower is left out. Both have ranges
    from the recorded samples, the first of the data.

    Args:
        model: A transformed model without quantizers. Not modified.
        decisions: What will be quantized.
        data: Calibration data. Equalization reads the first samples, the others all; a function is called.
        asked: Which methods.
        exceptions: Selectors of layer norms and products that are not smoothed.
        judged_by: ``"layers"`` leaves it at the places.
        progress: Show a progress bar, on a terminal.
        ranks: Who has data, each a part of its own.

    Returns:
        The copy; what became of each place and, where any was scaled, of the model, last for each method; and the data
        to calibrate with, which is other where ``data`` can be read once.
    """
    copied, split = deep_copy(model), judged_by != BY_LAYERS
    if asked.inputs_are:
        groups, held_back = measured_groups(
            copied, decisions, data, exceptions, asked.inputs_are, split=split, progress=progress, ranks=ranks
        )
    else:
        inputs, data = some_samples(copied, data, ranks, progress=progress)
        groups, held_back = list[ProductGroup](), hold_back(copied, inputs, ranks, split=split)
    corrections = []
    for method in asked.methods(groups, decisions):
        copied, told = _judged(method, copied, decisions, held_back, judged_by=judged_by)
        corrections += told
    return copied, corrections, data


def _judged(
    method: Method, model: fx.GraphModule, decisions: list[Decision], held_back: HeldBack, *, judged_by: str
) -> tuple[fx.GraphModule, list[Correction]]:
    """A copy of a model to which a method was applied, or the model; and what the report says."""
    by_places = scaled_by_places(method, model, decisions, held_back)
    before, worse = by_places.before, by_places.worse
    if before is None or judged_by == BY_LAYERS:
        return by_places.model, by_places.told
    scalings = [scaling for scaling in by_places.tried if not worse.keys() & set(scaling.where)]
    search = _Search(method, model, decisions, held_back, Score(before, held_back), worse)
    del before
    whole = search.run(scalings)
    changed, told = by_places.model, by_places.told
    if search.left_out != worse:
        changed = deep_copy(model)
        told = method(changed, search.left_out).told
    return changed, [*told, *([] if whole is None else [whole])]


class _Search:
    """Finds which scalings together do the model no harm.

    All are tried; where the model is worse with them, the first half and then the second, with those that did no harm
    before, down to single ones. So the model never gets worse on the way, and one that harms costs few runs.

    Args:
        method: What scales.
        model: What it scales copies of.
        decisions: What will be quantized.
        held_back: Whose runs to judge by.
        score: Of the model without any.
        left_out: What is left out beforehand, and why.

    Attributes:
        left_out: What is to be left out, and why.
    """

    def __init__(
        self,
        method: Method,
        model: fx.GraphModule,
        decisions: list[Decision],
        held_back: HeldBack,
        score: Score,
        left_out: Mapping[str, NotCorrected],
    ) -> None:
        self._method, self._model, self._decisions = method, model, decisions
        self._held_back, self._score = held_back, score
        self.left_out = dict(left_out)
        self._known: dict[frozenset[str], float | InputError | QuantizationError] = {}

    def run(self, scalings: Sequence[Scaling]) -> Correction | None:
        """Fill :attr:`left_out`; what the report says of the model, if any was to be tried."""
        if not scalings:
            return None
        everything = self._sqnr(scalings, scalings)
        if isinstance(everything, QuantizationError):
            return not_judged(self._method.what, everything)
        whole, worse = self._score.told(self._method.what, everything)
        best = self._score.before
        if worse is None or isinstance(best, InputError):
            return whole
        kept: list[Scaling] = []
        waiting = [list(scalings)]
        while waiting:
            part = waiting.pop()
            after = self._sqnr([*kept, *part], scalings)
            if isinstance(after, (InputError, QuantizationError)):
                after = -math.inf  # the outputs or ranges of some are not to be had
            if after >= best:
                kept, best = [*kept, *part], after
            elif len(part) > 1:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
            else:
                self.left_out.update(dict.fromkeys(part[0].where, self._score.worse(after, best)))
        return self._score.told(self._method.what, best)[0] if kept else whole

    def _sqnr(self, kept: Sequence[Scaling], scalings: Sequence[Scaling]) -> float | InputError | QuantizationError:
        """Of the model with some of the scalings; or why it has none."""
        self._held_back.ranks.check()
        places = frozenset(place for scaling in kept for place in scaling.where)
        if places not in self._known:
            others = (place for scaling in scalings for place in scaling.where if place not in places)
            changed = deep_copy(self._model)
            self._method(changed, {**self.left_out, **dict.fromkeys(others, _NOT_TRIED)})
            calibrated = calibrated_copy(changed, self._decisions, self._held_back)
            self._known[places] = (
                calibrated if isinstance(calibrated, QuantizationError) else self._score.sqnr(calibrated)
            )
        return self._known[places]
