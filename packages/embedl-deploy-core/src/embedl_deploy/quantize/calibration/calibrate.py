"""Calibration: computes the scales."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import fx, nn

from embedl_deploy.distributed.ranks import ALONE, Ranks
from embedl_deploy.distributed.together import taking_part
from embedl_deploy.errors import QuantizationError
from embedl_deploy.modules import QuantStub, WeightFakeQuantize
from embedl_deploy.quantize.calibration.data import CalibrationData, check_data, run_data
from embedl_deploy.quantize.calibration.finite import blaming_the_model, require_finite
from embedl_deploy.quantize.calibration.flow import watching_places
from embedl_deploy.quantize.calibration.merging import grids_of, merged, require_mergeable
from embedl_deploy.quantize.calibration.same_model import facts_of
from embedl_deploy.quantize.calibration.unreached import (
    check_all_reached,
    check_results_are_used,
    check_weights,
    require_some,
)
from embedl_deploy.quantize.calibration.without_data import grids_of_weights, require_no_data_needed
from embedl_deploy.quantize.grid.factory import make_observer
from embedl_deploy.quantize.grid.findings import Finding, summary
from embedl_deploy.quantize.grid.known_range import MOST_ROUNDED_TO_ZERO, KnownRangeObserver
from embedl_deploy.quantize.grid.observers import Observer, WeightObserver
from embedl_deploy.quantize.grid.scales import Grid
from embedl_deploy.quantize.placing.dynamic import DynamicQuantizer
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.quantize.placing.stored_format import StoresFormat
from embedl_deploy.quantize.reporting.report import REPORT, QuantizationReport
from embedl_deploy.validation.checked import checked

_logger = logging.getLogger(__name__)


def quantizers_of(model: nn.Module) -> dict[str, Quantizer]:
    """Every quantizer of a model, once, by path."""
    return {path: part for path, part in model.named_modules() if isinstance(part, Quantizer)}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within the block every module is in evaluation mode; afterwards each is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            object.__setattr__(module, "training", training)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Restore the buffers of a model after the block, because measuring is not use.

    Hooks are the user's, and may note what they see.
    """
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            if not torch.equal(buffer, value):
                buffer.copy_(value)


@checked
def calibrate(
    model: nn.Module,
    data: CalibrationData | None = None,
    *,
    progress: bool = True,
    process_group: dist.ProcessGroup | None = None,
) -> list[str]:
    """Find the scale of every quantizer by running the model over representative data.

    The model runs in evaluation mode, in float, on the device where it is; afterwards its mode is as it was, and so
    are its buffers, even those that its forward counts up. Memory does not grow with the amount of data. Scales do not
    depend on how the data is split into batches, nor on their order, except by ``MOVING_AVERAGE``.

    Args:
        model: What :func:`insert_qdq` returned; changed in place.
        data: A function that takes the model and runs it, or an iterable of batches: tensors, tuples of inputs (what
            is beyond the model's inputs, such as labels, is left out) or dictionaries. ``None`` where no activation
            needs it: only weights are quantized, or ranges are those of each call. The model is not run then.
        progress: Show a progress bar, on a terminal.
        process_group: Of torch.distributed, whose ranks, and no others, all call this with the same model, each with
            its own part of the data. The scales, the same on every rank, are those of all parts in one process.

    Returns:
        Names of the tensors that were zero throughout, in whole or in some channel. Their scale there is 1, so they
        stay zero.

    Raises:
        InputError: The model or the data is invalid, or there is none although it is needed.
        QuantizationError: The data is empty, a tensor holds NaN or infinity or is never reached, or a module gives the
            place of a weight's quantizer something else, or does not use what it returns. No scale is changed then.
        DistributedError: On one of the ranks something of this happened, or it is silent, or has another model. No
            scale is changed then.
    """
    with taking_part(process_group, "calibrate") as ranks:
        ranks.agree({**facts_of(model, scales=False), "data": "none" if data is None else "some"})
        return calibrate_together(model, data, ranks, progress=progress)


def calibrate_together(model: nn.Module, data: CalibrationData | None, ranks: Ranks, *, progress: bool) -> list[str]:
    """What :func:`calibrate` does, as one of some ranks that have the same model."""
    if data is None:
        with ranks.alike():
            return _calibrate_weights(model, ranks)
    zeros, observers = find_grids(model, data, progress=progress, ranks=ranks)
    findings = [observer.finding(grid) for observer, grid in observers]
    _report_findings(model, tuple(finding for finding in findings if finding is not None), ranks)
    known = [observer for observer, _ in observers if isinstance(observer, KnownRangeObserver)]
    _report_vanishing(model, known, ranks)
    return zeros


def find_grids(
    model: nn.Module, data: CalibrationData, *, progress: bool, ranks: Ranks = ALONE
) -> tuple[list[str], list[tuple[Observer, Grid]]]:
    """What :func:`calibrate` does, with no word in the model's report or in the log.

    Returns:
        What :func:`calibrate` returns, and what each quantizer saw and what came of it.
    """
    check_data(data)
    quantizers = list(quantizers_of(model).values())
    _require_quantizers(model)
    with (
        observing(model, quantizers) as observers,
        blaming_the_model(model),
        evaluation_mode(model),
        buffers_kept(model),
        watching_places(model) as watches,
    ):
        with ranks.alike():
            require_mergeable(observers, ranks)
        run_data(model, data, progress=progress, ranks=ranks)
    watched = dict(zip(quantizers, observers, strict=True))
    check_results_are_used(model, watches)
    require_some({q: observer.batches for q, observer in watched.items()})
    seen = {q: o.weight for q, o in watched.items() if isinstance(o, WeightObserver) and o.batches}
    check_weights(model, seen)
    seen_by = merged(observers, ranks)
    with ranks.alike():
        check_all_reached(model, {q: observer.batches for q, observer in watched.items()}, watches)
    grids = grids_of(observers, seen_by, ranks)
    zeros = []
    for quantizer, grid in zip(quantizers, grids, strict=True):
        quantizer.set_grid(grid)
        if grid.is_constant_zero:
            zeros.append(quantizer.name)
    return zeros, list(zip(observers, grids, strict=True))


def _require_quantizers(model: nn.Module) -> None:
    if not any(isinstance(part, StoresFormat) for part in model.modules()):
        raise QuantizationError("The model has no quantizers. Put them in first: insert_qdq(result.model, ...).")
    require_finite(
        (path, part)
        for path, part in model.named_modules()
        if any(isinstance(stub, WeightFakeQuantize) and stub.enabled for stub in part.children())
    )


def _calibrate_weights(model: nn.Module, ranks: Ranks) -> list[str]:
    """What :func:`calibrate` does for a model that needs no data."""
    _require_quantizers(model)
    quantizers = list(quantizers_of(model).values())
    require_no_data_needed(quantizers)
    found = grids_of_weights(model, quantizers)
    for quantizer, grid, _ in found:
        quantizer.set_grid(grid)
    _report_findings(model, tuple(finding for *_, finding in found if finding is not None), ranks)
    return [quantizer.name for quantizer, grid, _ in found if grid.is_constant_zero]


@contextmanager
def observing(model: nn.Module, quantizers: Sequence[Quantizer]) -> Iterator[list[Observer]]:
    """Within the block some quantizers of a model observe, and give what they are given; what observes is yielded.

    Those with the range of each call give what they are given, too.
    """
    ranges = {id(stub.quantizer): stub.amax for stub in model.modules() if isinstance(stub, QuantStub)}
    of_each_call = [part for part in model.modules() if isinstance(part, DynamicQuantizer)]
    observers = [make_observer(q.config, q.name, is_weight=q.is_weight, amax=ranges.get(id(q))) for q in quantizers]
    try:
        for quantizer, observer in zip(quantizers, observers, strict=True):
            quantizer.observer = observer
        for each in of_each_call:
            each.passing = True
        yield observers
    finally:
        for each in of_each_call:
            each.passing = False
        for quantizer in quantizers:
            quantizer.observer = None


def _report_findings(model: nn.Module, findings: tuple[Finding, ...], ranks: Ranks) -> None:
    """Say what was noticed, all in the report, and in one line of the log what is serious."""
    report = model.meta.get(REPORT) if isinstance(model, fx.GraphModule) else None
    if isinstance(model, fx.GraphModule) and isinstance(report, QuantizationReport) and report.findings != findings:
        model.meta[REPORT] = replace(report, findings=findings)
    told = summary(findings)
    if told is not None and ranks.first:
        _logger.warning("%s", told)


def _report_vanishing(model: nn.Module, observers: list[KnownRangeObserver], ranks: Ranks) -> None:
    """Say of which tensors with a known range a good part is rounded to zero, in the report and in the log."""
    shares = [(each.name, each.share_rounded_to_zero) for each in observers]
    vanishing = tuple((name, share) for name, share in shares if share >= MOST_ROUNDED_TO_ZERO)
    report = model.meta.get(REPORT) if isinstance(model, fx.GraphModule) else None
    if isinstance(model, fx.GraphModule) and isinstance(report, QuantizationReport) and report.vanishing != vanishing:
        model.meta[REPORT] = replace(report, vanishing=vanishing)
    if vanishing and ranks.first:
        name, share = max(vanishing, key=lambda entry: entry[1])
        _logger.warning(
            "%d tensor(s) with a known range lose much of it to rounding, the worst %s: %.0f %% of its sum becomes "
            "zero. Leave the module in float, QuantConfig(skip=...), or see quantization_report(model).",
            len(vanishing),
            name,
            100 * share,
        )
