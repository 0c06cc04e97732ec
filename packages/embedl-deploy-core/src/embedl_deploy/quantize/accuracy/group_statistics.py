"""Measures what has to be known of the inputs of products to scale them, on samples that are not held back."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

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
    split: bool = True,
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
        split: Whether runs may be split (:func:`hold_back`).
        progress: Show a progress bar, on a terminal.
        ranks: Who has data.

    Returns:
        The groups, and what was learned from and held back of the first samples.
    """
    groups = find_groups(model, decisions, exceptions, inputs_are)
    return groups, _measure(model, groups, data, ranks, split=split, progress=progress)


@torch.no_grad()
def _measure(
    model: fx.GraphModule,
    groups: list[ProductGroup],
    data: CalibrationData,
    ranks: Ranks,
    *,
    split: bool,
    progress: bool,
) -> HeldBack:
    """Find the largest magnitude of each channel of each group's input, and which products read it."""
    recorder = recorder_for(model, SAMPLES, ranks)
    with measuring(groups) as look, evaluation_mode(model), buffers_kept(model):
        handle = model.register_forward_pre_hook(lambda *_: look(not recorder.keeps))
        try:
            run_data(model, data, progress=progress, ranks=ranks)
        finally:
            handle.remove()
            recorder.close()
        look(False)
        held_back = hold_back(model, recorder.inputs, ranks, split=split)
        look(True)
        run_data(model, held_back.run_learned, progress=False)
    return held_back


@contextmanager
def measuring(groups: list[ProductGroup]) -> Iterator[Callable[[bool], None]]:
    """Within the block runs of a model are measured, while the function that is yielded was last told ``True``.

    Afterwards the groups have the statistics of their inputs, the products that read them, and their problems.

    Args:
        groups: Of that model, without statistics.
    """
    watches = [(group, node, _watch(group, node)) for group in groups for node in group.readers]

    def look(here: bool) -> None:
        for _, _, watch in watches:
            watch.asleep = not here

    try:
        yield look
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
