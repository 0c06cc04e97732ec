"""The work on one model, block by block, and what it leaves in the folder."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from embedl_deploy.files import write_text
from embedl_deploy.logs import stage
from embedl_deploy.pipeline import BACKEND
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize.placing.placement import place
from embedl_deploy.quantize.reporting.report import quantization_report
from embedl_deploy.shards.activations import CALIBRATED, EXACT, FLOAT, OBSERVED, QUANTIZED, TRIED, Activations
from embedl_deploy.shards.block_model import Loaded, block_model
from embedl_deploy.shards.block_quantization import Flow, quantize_block
from embedl_deploy.shards.blocks import Block
from embedl_deploy.shards.finished import Finished, joined_recipe, joined_report, place_of
from embedl_deploy.shards.origins import Origin
from embedl_deploy.shards.report import BlockReport, ShardsReport
from embedl_deploy.shards.settings import Runs, Settings, samples_of
from embedl_deploy.shards.source import Shards
from embedl_deploy.shards.writing import CONSTANTS, RECIPE, constants_of, shard_name, write_index, write_tensors

ACTIVATIONS = ".activations"


class Work:
    """The work on one model.

    Args:
        result: The transformed model.
        shards: Its weights.
        origins: Where its tensors come from.
        settings: What is done to each block.
        blocks: Its blocks.
        folder: Where to write.
    """

    def __init__(
        self,
        result: TransformationResult,
        shards: Shards,
        origins: Mapping[str, Origin],
        settings: Settings,
        blocks: Sequence[Block],
        folder: Path,
    ) -> None:
        self.result, self.shards, self.origins, self.settings = result, shards, origins, settings
        self.blocks, self.folder = blocks, folder

    def activations(self, number: int) -> Activations:
        """What flows into a block."""
        return Activations(self.folder / ACTIVATIONS / str(number))

    def begin(self, inputs: Sequence[tuple[Any, ...]], done: int) -> Runs:
        """Write what flows into the first block, unless that is done; which runs are for what."""
        runs = Runs.of([samples_of(values) for values in inputs])
        if done == 0:
            first = self.activations(0)
            first.remove()
            for kind, numbers in self._kinds(runs).items():
                for number in numbers:
                    first.write(kind, number, inputs[number])
        return runs

    def _kinds(self, runs: Runs) -> dict[str, Sequence[int]]:
        kinds: dict[str, Sequence[int]] = {CALIBRATED: runs.all}
        if self.settings.smoothing is not None:
            kinds |= {FLOAT: runs.all, OBSERVED: runs.recorded, TRIED: runs.judged}
        if self.settings.corrects:
            kinds |= {EXACT: runs.recorded, QUANTIZED: runs.recorded}
        return kinds

    def quantize(self, number: int, runs: Runs | None, done: Sequence[Finished]) -> Finished:
        """Quantize one block, and write it and what flows out of it."""
        block, began = self.blocks[number], time.monotonic()
        stage(f"quantizing block {number + 1} of {len(self.blocks)}, {block.name}")
        part = block_model(self.result.model, block)
        loaded = Loaded(part, self.origins, self.shards)
        flow = None
        if runs is not None:
            after = self.activations(number + 1) if number + 1 < len(self.blocks) else None
            if after is not None:
                after.remove()
            flow = Flow(runs, self.activations(number), after)
        quantized = quantize_block(part, self.settings, flow)
        file = shard_name(number + 1, len(self.blocks))
        written_before = {stored for each in done for stored in each.whole.values()}
        state = quantized.model.state_dict(keep_vars=True)
        state = {n: t.detach() for n, t in state.items() if loaded.whole.get(id(t)) not in written_before}
        state = _each_once(state)
        write_tensors(self.folder / file, state)
        size = sum(tensor.nbytes for tensor in state.values())
        report = BlockReport(block.name, file, loaded.bytes, size, time.monotonic() - began)
        return Finished.of(quantized, report, loaded.whole, dict.fromkeys(state, file))

    def finish(self, done: Sequence[Finished]) -> ShardsReport:
        """Write the index and the recipe, of finished blocks."""
        model = self.result.model
        whole = quantization_report(place(model, list(self.settings.decisions), self.settings.policy))
        order = {place_of(point): i for i, point in enumerate(whole.points)}
        recipe = joined_recipe(model.meta.get(BACKEND), done, order)
        reports = tuple(BlockReport(**block.report) for block in done)
        write_tensors(self.folder / CONSTANTS, constants_of(model))
        write_index(self.folder, [block.files for block in done], sum(report.bytes_written for report in reports))
        write_text(self.folder / RECIPE, recipe.to_json())
        Activations(self.folder / ACTIVATIONS).remove()
        return ShardsReport(self.folder, reports, joined_report(model, whole, done))


def _each_once(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that are one under their first name alone."""
    seen: dict[Any, str] = {}
    found = {}
    for name, tensor in state.items():
        same = (tensor.data_ptr(), tensor.storage_offset(), tuple(tensor.shape))
        if tensor.numel() == 0 or seen.setdefault(same, name) == name:
            found[name] = tensor
    return found
