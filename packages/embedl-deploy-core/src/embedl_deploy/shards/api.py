"""The function ``quantize_shards``."""

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from embedl_deploy.errors import InputError
from embedl_deploy.graph.fingerprint import fingerprint
from embedl_deploy.graph.inputs import bind_inputs
from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.pipeline import BACKEND
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize.accuracy.methods import Methods
from embedl_deploy.quantize.accuracy.smoothing import SmoothQuantConfig
from embedl_deploy.quantize.calibration.calibrate import quantizers_of
from embedl_deploy.quantize.calibration.data import as_call
from embedl_deploy.quantize.calibration.progress import progress_bar
from embedl_deploy.quantize.calibration.without_data import require_no_data_needed
from embedl_deploy.quantize.placing.hardware import complete_config
from embedl_deploy.quantize.placing.placement import decide_for, place
from embedl_deploy.shards.activations import Activations
from embedl_deploy.shards.blocks import find_blocks
from embedl_deploy.shards.finished import Finished
from embedl_deploy.shards.origins import find_origins
from embedl_deploy.shards.report import ShardsReport
from embedl_deploy.shards.settings import Settings, fingerprint_of_inputs
from embedl_deploy.shards.source import INDEX, Shards, open_shards
from embedl_deploy.shards.work import ACTIVATIONS, Work
from embedl_deploy.shards.writing import RECIPE
from embedl_deploy.state_file import StateFile, release
from embedl_deploy.validation.checked import checked

_STATE = "quantization_state.json"


@checked
def quantize_shards(
    result: TransformationResult,
    weights: str | os.PathLike[str] | Shards,
    folder: str | os.PathLike[str],
    data: Iterable[Any] | None = None,
    config: QuantConfig | None = None,
    *,
    blocks: str | None = None,
    smooth_quant: bool | float | SmoothQuantConfig = False,
    bias_correction: bool = False,
    learned_rounding: bool = False,
    progress: bool = True,
) -> ShardsReport:
    """Quantize a model that is larger than memory, block by block, and write it to a folder.

    At any time there are in memory the weights of one block, what corrections make of them, and what flows through that
    block for one batch; for the batches that corrections learn from and are judged by, the first 80 samples, all that
    flows through it. The result is, bit for bit, that of ``quantize(..., judged_by="layers", freeze_weights=True)``.

    A run that is interrupted, however, continues behind the last finished block if it is started again in the same way.

    Args:
        result: What ``transform`` gave for the model on torch's meta device. Tensors that have values, such as buffers
            that the model computes when it is made, are taken as they are.
        weights: The weights: a folder, a file, or what :func:`open_shards` gave.
        folder: Where to write: shards of safetensors with integer weights and scales, their index, and ``recipe.json``.
            :func:`load_quantized` reads it. Created if it is not there.
        data: Calibration data, an iterable of batches, read once. Not needed where only weights are quantized, or
            activations by the range of each call.
        config: Formats, exceptions and policy, as for ``quantize``.
        blocks: A glob over the paths of the layers that are blocks, such as ``"model.layers.*"``. By default the
            numbered children of one module that have the most parameters.
        smooth_quant: As for ``quantize``.
        bias_correction: As for ``quantize``.
        learned_rounding: As for ``quantize``.
        progress: Show a progress bar, on a terminal.

    Raises:
        InputError: The weights are not those of the model, the data does not fit it or is missing, the folder holds
            another model, or another run uses it.
        QuantizationError: See ``quantize``.
        FileWriteError: The disk is full.
    """
    shards = weights if isinstance(weights, Shards) else open_shards(weights)
    place_for = Path(folder)
    _require_room(place_for)
    model = result.model
    origins = find_origins(result, shards)
    complete = complete_config(config, model.meta.get(BACKEND))
    decisions, policy = decide_for(model, result.matches, complete)
    settings = Settings(
        decisions=tuple(decisions),
        policy=policy,
        smoothing=Methods.asked(False, smooth_quant, False, bias_correction, learned_rounding).smooth_quant,
        exceptions=tuple(complete.exceptions.smooth),
        bias_correction=bias_correction,
        learned_rounding=learned_rounding,
    )
    settings.require_possible(data)
    if data is None:
        require_no_data_needed(quantizers_of(place(model, decisions, policy)).values(), "quantize_shards")
    parts = find_blocks(model, decisions, blocks, alone=settings.smoothing is not None)
    inputs = None if data is None else _inputs(result, data)
    of = {
        "model": fingerprint(model),
        "weights": shards.fingerprint(),
        "configuration": settings.fingerprint(),
        "calibration data": "none" if inputs is None else fingerprint_of_inputs(inputs),
        "division into blocks": ", ".join(block.name for block in parts),
        "release": release(),
    }
    state = StateFile(place_for / _STATE, of, "folder")
    done: list[Finished] = []
    with state.in_use() as found, _forgotten_without(done, place_for):
        if not found:
            state.save({"blocks": []})  # the folder is this run's, before anything is written to it
        work = Work(result, shards, origins, settings, parts, place_for)
        done += [Finished(**entry) for entry in found.get("blocks", [])]
        runs = None if inputs is None else work.begin(inputs, len(done))
        del inputs  # the values are in files now
        with progress_bar("quantizing blocks", range(len(done), len(parts)), shown=progress) as numbers:
            for number in numbers:
                done.append(work.quantize(number, runs, done))
                gc.collect()  # a graph and its nodes refer to each other, so the block would stay until Python looks
                state.save({"blocks": [asdict(block) for block in done]})
                work.activations(number).remove()
        report = work.finish(done)
        (place_for / _STATE).unlink()
    return report


@contextmanager
def _forgotten_without(done: list[Finished], folder: Path) -> Iterator[None]:
    """A run that ends before its first block is finished leaves nothing: the next may be of something else."""
    try:
        yield
    finally:
        if not done:
            Activations(folder / ACTIVATIONS).remove()
            (folder / _STATE).unlink(missing_ok=True)


def _require_room(folder: Path) -> None:
    """Refuse a folder with tensors that no interrupted run has left, such as the weights that are read.

    Raises:
        InputError: It is one.
    """
    name = repr(os.fspath(folder))
    if (folder / RECIPE).exists():
        raise InputError(f"{name} holds a finished model. Write to another folder, or delete it.")
    others = [] if (folder / _STATE).exists() else sorted({*folder.glob("*.safetensors"), *folder.glob(INDEX)})
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise InputError(
            f"{name} holds {others[0].name!r}{more}, which no interrupted run has left, and nothing there is replaced. "
            "Write to a new folder."
        )


def _inputs(result: TransformationResult, data: Iterable[Any]) -> list[tuple[Any, ...]]:
    """The inputs of every batch, in the order of the graph's inputs.

    Raises:
        InputError: A batch does not fit the model, or there is none.
    """
    found = []
    for number, batch in enumerate(data, 1):
        try:
            args, kwargs = as_call(result.model, batch, torch.device("cpu"))
            found.append(tuple(bind_inputs(result.model, args, kwargs)))
        except InputError as error:
            raise InputError(f"Batch {number} of the calibration data cannot be used: {error}") from error
    if not found:
        raise InputError("The calibration data is empty: it has no batches. Pass at least one.")
    return found
