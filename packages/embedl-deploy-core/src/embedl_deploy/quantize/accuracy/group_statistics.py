"""Measures what has to be known of the inputs of products to scale them, on samples that are not held back."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from embedl_deploy.distributed.ranks import ALONE, Ranks
from embedl_deploy.numerics.selectors import Selector
from embedl_deploy.quantize.accuracy.held_back import SAMPLES, HeldBack, hold_back
from embedl_deploy.quantize.accuracy.product_groups import InputsAre, ProductGroup, find_groups, module_of, products_of
from embedl_deploy.quantize.accuracy.readers import ReaderWatch
from embedl_deploy.quantize.calibration.calibrate import buffers_kept, evaluation_mode
from embedl_deploy.quantize.calibration.chosen_inputs import recorder_for
from embedl_deploy.quantize.calibration.data import CalibrationData, run_data
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.reporting.corrections import WhyNotCorrected, not_corrected


def measured_groups(
    model: fx.GraphModule,
    decisions: list[Decision],
    data: CalibrationData,
    exceptions: tuple[Selector, ...] = (),
    inputs_are: Collection[InputsAre] = (InputsAre.QUANTIZED,),
    *,
    progress: bool = True,
    ranks: Ranks = ALONE,
) -> tuple[list[ProductGroup], HeldBack]:
    """The groups of products whose weight is to be quantized, with the statistics of their inputs.

    A quarter of the first samples are held back: they are not in the statistics. With a process group, statistics are
    of the samples that are learned from, chosen from the data of all ranks.

    Args:
        model: A transformed model without quantizers. It runs, and is as it was afterwards.
        decisions: What will be quantized, on this model or the one that it is a copy of.
        data: As for :func:`calibrate`; read once.
        exceptions: Selectors of layer norms and products to leave out.
        inputs_are: What the products' inputs are to be.
        progress: Show a progress bar, on a terminal.
        ranks: Who has data.

    Returns:
        The groups, and what was learned from and held back of the first samples.
    """
    groups = find_groups(model, decisions, exceptions, inputs_are)
    return groups, _measure(model, groups, data, ranks, progress=progress)


@torch.no_grad()
def _measure(
    model: fx.GraphModule, groups: list[ProductGroup], data: CalibrationData, ranks: Ranks, *, progress: bool
) -> HeldBack:
    """Find the largest magnitude of each channel of each group's input, and which products read it."""
    watches = [(group, node, _watch(group, node)) for group in groups for node in group.readers]
    recorder = recorder_for(model, SAMPLES, ranks)

    def look_away(*_: Any) -> None:
        _all(watches, asleep=recorder.keeps)

    handle = model.register_forward_pre_hook(look_away)
    try:
        with evaluation_mode(model), buffers_kept(model):
            run_data(model, data, progress=progress, ranks=ranks)
            handle.remove()
            recorder.close()
            _all(watches, asleep=True)
            held_back = hold_back(model, recorder.inputs, ranks)
            _all(watches, asleep=False)
            run_data(model, held_back.run_learned, progress=False)
    finally:
        handle.remove()
        recorder.close()
        for _, _, watch in watches:
            watch.remove()
    for group, node, watch in watches:
        group.readers[node] = {name: group.readers[node][name] for name in group.readers[node] if name in watch.reads}
        problem = watch.problem
        if not watch.reads:
            problem = not_corrected(WhyNotCorrected.NOT_REACHED)
        if group.problem is None and problem is not None:
            group.problem = problem if len(group.readers) == 1 else replace(problem, reader=str(node.target))
    return held_back


def _all(watches: list[tuple[ProductGroup, fx.Node, ReaderWatch]], *, asleep: bool) -> None:
    for _, _, watch in watches:
        watch.asleep = asleep


def _watch(group: ProductGroup, node: fx.Node) -> ReaderWatch:
    products = {name: product for name, product in products_of(node).items() if name in group.readers[node]}
    first = next(iter(group.readers))
    return ReaderWatch(module_of(node), products, group.add if node is first else lambda _: None)
