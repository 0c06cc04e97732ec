"""Quantizes one block: what :func:`embedl_deploy.quantize.quantize` does to a model, step by step, to a part of it.

In float, a block computes from what the blocks before it give in float. So ranges, and what smoothing measures, are
those of the whole model. What corrections are judged by is the error of each layer, with the errors of the blocks
before it in its inputs; the model's outputs are not there yet (``judged_by="layers"``).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from embedl_deploy.errors import EmbedlDeployError, QuantizationError
from embedl_deploy.graph.edit import copy_of_shared_parameters
from embedl_deploy.graph.out_of_memory import is_out_of_memory
from embedl_deploy.modules import QuantStub
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.accuracy.by_places import scaled_by_places
from embedl_deploy.quantize.accuracy.group_statistics import measuring
from embedl_deploy.quantize.accuracy.held_back import HeldBack
from embedl_deploy.quantize.accuracy.judging import BY_LAYERS
from embedl_deploy.quantize.accuracy.product_groups import find_groups
from embedl_deploy.quantize.accuracy.reconstruction import correct_biases, learn_rounding, made_plain
from embedl_deploy.quantize.accuracy.scaling_methods import Asked
from embedl_deploy.quantize.accuracy.smoothing import SmoothQuantConfig
from embedl_deploy.quantize.calibration.calibrate import buffers_kept, calibrate, evaluation_mode, find_grids
from embedl_deploy.quantize.calibration.finite import require_finite
from embedl_deploy.quantize.calibration.paired_run import emptied
from embedl_deploy.quantize.freezing import frozen_to_be_read
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.placing.placement import place
from embedl_deploy.quantize.placing.stored_format import StoresFormat
from embedl_deploy.quantize.reporting.corrections import Correction
from embedl_deploy.quantize.reporting.report import QuantizationReport, quantization_report
from embedl_deploy.shards.activations import (
    CALIBRATED,
    EXACT,
    FLOAT,
    OBSERVED,
    QUANTIZED,
    TRIED,
    Activations,
    Batches,
)
from embedl_deploy.shards.block_model import decisions_in
from embedl_deploy.shards.settings import Runs, Settings


@dataclass(frozen=True)
class Flow:
    """What flows through a block.

    Attributes:
        runs: Which batches.
        before: What flows in.
        after: What flows out is written there; ``None`` behind the last block.
    """

    runs: Runs
    before: Activations
    after: Activations | None

    def held_back(self, exact: str, rounded: str) -> HeldBack:
        """Runs to learn from and to judge by, in float, and what the quantized block is given in their place.

        What is tried is not learned from: of those runs there are no quantized values.
        """
        apart = rounded == TRIED and self.runs.judged != self.runs.learned
        return replace(self._runs(exact, exact), rounded=self._runs(exact if apart else rounded, rounded))

    def _runs(self, learned: str, judged: str) -> HeldBack:
        first = self.before.of(learned, self.runs.learned).runs()
        if self.runs.judged == self.runs.learned and learned == judged:
            return HeldBack(first, first)
        return HeldBack(first, self.before.of(judged, self.runs.judged).runs())

    @torch.no_grad()
    def pass_on(self, kind: str, part: fx.GraphModule, numbers: Sequence[int]) -> None:
        """Run a block on values of a kind, and write what it gives."""
        if self.after is None:
            return
        with evaluation_mode(part), buffers_kept(part):
            for number in numbers:
                self.after.write(kind, number, self.run(part, kind, number))

    def run(self, part: fx.GraphModule, kind: str, number: int) -> Any:
        """What a block gives for the values of one batch.

        Raises:
            QuantizationError: It fails.
        """
        (values,) = self.before.of(kind, [number])
        try:
            return part(*values)
        except Exception as error:  # a model and its modules may raise anything
            if isinstance(error, EmbedlDeployError) or is_out_of_memory(error):
                raise
            reason = " ".join(str(error).partition("\n\nWhile executing")[0].split()).rstrip(".")
            raise QuantizationError(
                f"Batch {number + 1} of the calibration data makes the model raise {type(error).__name__}: {reason}. "
                "Pass batches that the model accepts."
            ) from error

    @contextmanager
    def written(self, kind: str, part: fx.GraphModule, numbers: Sequence[int]) -> Iterator[Batches]:
        """Within the block, what a block gives for values of a kind, which are yielded, is written."""
        left = iter(numbers)

        def write(_part: Any, _args: Any, values: tuple[Any, ...]) -> None:
            if self.after is not None:
                self.after.write(kind, next(left), values)

        handle = part.register_forward_hook(write)
        try:
            yield self.before.of(kind, numbers)
        finally:
            handle.remove()


@dataclass(frozen=True)
class QuantizedBlock:
    """A block that was quantized.

    Attributes:
        model: Frozen, with integer weights.
        report: What became of its points, and what calibration noticed.
        corrections: What was done to keep accuracy.
        before_freezing: The tensors that it had, by name, by their ids.
    """

    model: fx.GraphModule
    report: QuantizationReport
    corrections: tuple[Correction, ...]
    before_freezing: dict[str, int]


def quantize_block(part: fx.GraphModule, settings: Settings, flow: Flow | None) -> QuantizedBlock:
    """Quantize a block, and write what flows out of it.

    Args:
        part: The block, with its weights. Not modified.
        settings: What to do.
        flow: What flows through it; ``None`` where nothing has to.

    Raises:
        QuantizationError: See :func:`embedl_deploy.quantize.calibrate`.
        FileWriteError: The disk is full.
    """
    own = decisions_in(part, settings.decisions)
    require_finite((d.point.path, d.point.module) for d in own if d.config and d.point.kind is PointKind.WEIGHT)
    corrections: list[Correction] = []
    if settings.smoothing is not None and flow is not None:
        part, corrections = _smoothed(part, own, settings, settings.smoothing, flow)
    quantized = place(part, own, settings.policy, copy_of_shared_parameters)
    if not _has_quantizers(quantized):
        if flow is not None:
            flow.pass_on(CALIBRATED, quantized, flow.runs.all)
    elif flow is None:
        calibrate(quantized, progress=False)
    else:
        with flow.written(CALIBRATED, quantized, flow.runs.all) as batches:
            calibrate(quantized, batches, progress=False)
    report = quantization_report(quantized)
    if settings.corrects and flow is not None:
        corrections += _corrected(quantized, settings, flow)
    tensors = {name: id(tensor) for name, tensor in quantized.state_dict(keep_vars=True).items()}
    return QuantizedBlock(frozen_to_be_read(quantized, weights=True), report, tuple(corrections), tensors)


def _has_quantizers(part: fx.GraphModule) -> bool:
    return any(isinstance(module, StoresFormat) for module in part.modules())


def _corrected(quantized: fx.GraphModule, settings: Settings, flow: Flow) -> list[Correction]:
    """Correct the weights and biases of a calibrated block, in place; what flows out before and after is written."""
    made_plain(quantized)
    with emptied(*(stub for stub in quantized.modules() if isinstance(stub, QuantStub))):
        flow.pass_on(EXACT, quantized, flow.runs.recorded)
    correct = learn_rounding if settings.learned_rounding else correct_biases
    done = correct(quantized, flow.held_back(EXACT, QUANTIZED), judged_by=BY_LAYERS, progress=False)
    flow.pass_on(QUANTIZED, quantized, flow.runs.recorded)
    return done


@torch.no_grad()
def _smoothed(
    part: fx.GraphModule, own: list[Decision], settings: Settings, smoothing: SmoothQuantConfig, flow: Flow
) -> tuple[fx.GraphModule, list[Correction]]:
    """A smoothed copy of a block; what flows out of the block without smoothing is written."""
    names = {node.name for node in part.graph.find_nodes(op="call_module")}
    inside = [decision for decision in settings.decisions if decision.point.node.name in names]
    groups = find_groups(part, inside, settings.exceptions)
    with measuring(groups) as look, evaluation_mode(part), buffers_kept(part):
        look(True)
        for numbers in (flow.runs.beyond, flow.runs.learned):
            for number in numbers:
                flow.run(part, FLOAT, number)
    flow.pass_on(FLOAT, part, flow.runs.all)
    before = place(part, own, settings.policy, copy_of_shared_parameters)
    order = flow.runs.learned if flow.runs.learned == flow.runs.judged else (*flow.runs.learned, *flow.runs.judged)
    if _has_quantizers(before):
        with flow.written(OBSERVED, before, order) as batches:
            find_grids(before, batches, progress=False)
    else:
        flow.pass_on(OBSERVED, before, order)
    flow.pass_on(TRIED, before, flow.runs.judged)
    (method,) = Asked(smoothing=smoothing).methods(groups, own)
    held_back = flow.held_back(FLOAT, TRIED)
    scaled = scaled_by_places(method, part, own, held_back, copy_of_shared_parameters, before)
    return scaled.model, scaled.told
