"""Reads the samples that equalization is judged by."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from torch import fx

from embedl_deploy.distributed.ranks import Ranks
from embedl_deploy.quantize.accuracy.held_back import SAMPLES
from embedl_deploy.quantize.calibration.calibrate import buffers_kept, evaluation_mode
from embedl_deploy.quantize.calibration.chosen_inputs import recorder_for
from embedl_deploy.quantize.calibration.data import CalibrationData, run_data
from embedl_deploy.quantize.calibration.recorded_inputs import Inputs


def some_samples(
    model: fx.GraphModule, data: CalibrationData, ranks: Ranks, *, progress: bool
) -> tuple[list[Inputs], CalibrationData]:
    """Inputs of a model, the first or those chosen on all ranks, and the data to go on with; the model runs."""
    recorder, read = recorder_for(model, SAMPLES, ranks), []

    def first(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            read.append(batch)
            yield batch
            if recorder.full:
                return

    batches = iter(data) if isinstance(data, Iterable) and not ranks.grouped else None
    try:
        with evaluation_mode(model), buffers_kept(model):
            run_data(model, data if batches is None else first(batches), progress=progress, ranks=ranks)
    finally:
        recorder.close()
    return recorder.inputs, chain(read, batches) if batches is not None and batches is data else data
