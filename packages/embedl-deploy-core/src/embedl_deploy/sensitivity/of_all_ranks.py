"""Measures the noise of batches that several ranks have, as one number for all, whatever their split and order.

The probes of a batch are drawn from its content, not from its place. What each batch gave is gathered, and added up
exactly: ``math.fsum`` rounds once, at the end.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from embedl_deploy.distributed.ranks import Ranks
from embedl_deploy.exclusive import global_state
from embedl_deploy.quantize.calibration.calibrate import evaluation_mode
from embedl_deploy.quantize.calibration.chosen_inputs import content_of
from embedl_deploy.quantize.calibration.data import CalibrationData, for_each_call
from embedl_deploy.sensitivity.layers import Layer
from embedl_deploy.sensitivity.metrics import Metric
from embedl_deploy.sensitivity.noise import PARTS, Noise, add_batch

#: Hexadecimal digits of a content that a seed is made from.
_DIGITS = 15


def noise_of_all(
    model: fx.GraphModule,
    layers: list[Layer],
    metric: Metric,
    probes: int,
    seed: int,
    data: CalibrationData,
    ranks: Ranks,
    *,
    progress: bool,
) -> Noise:
    """The noise of all batches of all ranks.

    Args:
        model: A calibrated model. Its state stays.
        layers: Its layers.
        metric: Of the outputs.
        probes: Backward passes for each batch.
        seed: Of the probes.
        data: Of this rank.
        ranks: Who has data.
        progress: Show a progress bar, on a terminal.

    Raises:
        QuantizationError: There is no data, or see :func:`~embedl_deploy.sensitivity.noise.add_batch`.
        InputError: See there, too.
        DistributedError: Another rank has failed.
    """
    measured: list[Noise] = []

    def measure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        drawn = seed + int(content_of((args, kwargs))[:_DIGITS], 16)
        noise = Noise()
        with global_state:
            generator = torch.Generator().manual_seed(drawn)
            add_batch(noise, model, layers, (args, kwargs), metric, generator, probes)
        measured.append(noise)

    with evaluation_mode(model):
        for_each_call(model, data, measure, progress=progress, ranks=ranks)
    return added_up([noise for part in ranks.gather("adding up the noise", measured) for noise in part])


def added_up(batches: Sequence[Noise]) -> Noise:
    """The noise of some batches together, the same in any order."""
    nothing = dict.fromkeys(PARTS, 0.0)
    names = sorted({name for noise in batches for name in noise.layers})
    return Noise(
        layers={
            name: {part: math.fsum(noise.layers.get(name, nothing)[part] for noise in batches) for part in PARTS}
            for name in names
        },
        total=math.fsum(noise.total for noise in batches),
        scale=math.fsum(noise.scale for noise in batches),
        batches=sum(noise.batches for noise in batches),
        probes=sum(noise.probes for noise in batches),
    )
