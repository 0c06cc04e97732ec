"""Quantizing on several ranks: ``python -m support.rank_quantizing FOLDER`` prints what came of it as JSON.

Batches have the same size everywhere, because torch's own kernels may round in another way for another batch size.
"""

import hashlib
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from embedl_deploy.distributed import post
from embedl_deploy.quantize import CalibrationMethod, QuantConfig, TensorQuantConfig, calibrate, quantization_report
from support.nets import net
from support.quantizable import inserted, residual_block, scales_of
from support.ranks import run_ranks

SILENCE = 2.0
#: Numbers of ranks; 0 is one process without a group. ``./dev distributed`` runs more.
SIZES = (0, 1, 2, 3)
METHODS = [method for method in CalibrationMethod if method is not CalibrationMethod.MOVING_AVERAGE]


def images(count: int = 10) -> list[torch.Tensor]:
    """Batches of two pictures, some brighter than others."""
    generator = torch.Generator().manual_seed(3)
    return [(1 + i % 4) * torch.randn(2, 3, 8, 8, generator=generator) for i in range(count)]


def part_of(batches: list[Any], rank: int, size: int, seed: int) -> list[Any]:
    """An uneven part of the batches, in another order; the last rank has one batch."""
    shuffled = random.Random(seed).sample(batches, len(batches))
    parts: list[list[Any]] = [[] for _ in range(size)]
    for i, batch in enumerate(shuffled):
        parts[size - 1 if i == 0 else i % max(1, size - 1)].append(batch)
    return parts[rank]


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """Of names and bits."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def scales(size: int) -> Callable[[int], Any]:
    """By method, the scales of a residual block, and what is said of its tensors; size 0 is without a group."""

    def work(rank: int) -> Any:
        found = {}
        for method in METHODS:
            settings = TensorQuantConfig(calibration_method=method, percentile=98.0)
            model = inserted(residual_block(), QuantConfig(activation=settings))
            group = dist.group.WORLD if size else None
            calibrate(model, part_of(images(), rank, max(1, size), seed=size), progress=False, process_group=group)
            findings = [finding.tensor for finding in quantization_report(model).findings]
            found[method.value] = [digest(scales_of(model)), findings]
        return found

    return work


def learned_average(rank: int) -> Any:
    """By a moving average, which has an order."""
    average = TensorQuantConfig(calibration_method=CalibrationMethod.MOVING_AVERAGE)
    model = inserted(residual_block(), QuantConfig(activation=average))
    return calibrate(model, images()[rank::2], progress=False, process_group=dist.group.WORLD)


def failing(what: str) -> Callable[[int], Any]:
    """Rank 1 has something that the others do not have; afterwards no scale is known."""

    def work(rank: int) -> Any:
        first, data = residual_block(), images()[rank::2]
        wrong = rank == 1
        if wrong and what == "weights":
            first.fc.bias.data[0] += 1
        config = QuantConfig(activation=TensorQuantConfig(symmetric=not (wrong and what == "formats")))
        model = inserted(first, config)
        given: Any = {
            "no batches": [],
            "a function that does nothing": lambda _: None,
            "another shape": [torch.zeros(2, 5, 8, 8)],
            "NaN": [data[0], torch.full((2, 3, 8, 8), float("nan"))],
            "no data": None,
        }.get(what, data)
        try:
            calibrate(model, given if wrong else data, progress=False, process_group=dist.group.WORLD)
        finally:
            assert all(bool(scale.isnan()) for scale in scales_of(model).values())
        return "calibrated"

    return work


FAILURES = ("weights", "formats", "no batches", "a function that does nothing", "another shape", "NaN", "no data")


def found_in_parts(size: int) -> Callable[[int], Any]:
    """Rank 0 alone has the brightest batch: the finding says so."""

    def work(rank: int) -> Any:
        model = inserted(net(lambda self, x: torch.relu(self.fc(x)), fc=nn.Linear(4, 4)))
        data = [torch.ones(1, 4) * (1000 if i == 0 and rank == 0 else 1) * (1 + i) for i in range(4)]
        calibrate(model, data, progress=False, process_group=dist.group.WORLD if size > 1 else None)
        return [str(finding) for finding in quantization_report(model).findings]

    return work


def main(folder: Path) -> dict[str, Any]:
    """Everything, by name."""
    post.BEAT, post.SILENCE = SILENCE / 8, SILENCE
    calibrate(inserted(residual_block()), images(1), progress=False)  # imports what it needs, once for all
    told: dict[str, Any] = {"failures": {}}
    told["scales"] = {size: run_ranks(max(1, size), scales(size), folder) for size in SIZES}
    for what in FAILURES:
        told["failures"][what] = run_ranks(2, failing(what), folder)
    told["moving average"] = run_ranks(2, learned_average, folder)
    told["findings"] = {size: run_ranks(size, found_in_parts(size), folder) for size in (1, 2)}
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
