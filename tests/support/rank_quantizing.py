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

from embedl_deploy import TransformationResult, transform
from embedl_deploy.distributed import post
from embedl_deploy.quantize import (
    CalibrationMethod,
    Precision,
    QuantConfig,
    TensorQuantConfig,
    calibrate,
    quantization_recipe,
    quantization_report,
    quantize,
)
from embedl_deploy.sensitivity import sensitivity
from support.nets import net
from support.quantizable import fused, inserted, perceptron, residual_block, scales_of
from support.ranks import run_ranks

SILENCE = 2.0
#: Numbers of ranks; 0 is one process without a group. ``./dev distributed`` runs more.
SIZES, CORRECTED_SIZES = (0, 1, 2, 3), (1, 3)
#: Ways to quantize, and for some of them another model than a residual block, with its data.
CORRECTIONS: dict[str, dict[str, Any]] = {
    "equalization": {"equalization": True, "config": QuantConfig(weight=TensorQuantConfig(Precision.INT8))},
    "smoothing": {"smooth_quant": True},
    "awq": {"awq": True, "config": QuantConfig(None, TensorQuantConfig(Precision.INT4, per_channel=True))},
    "bias correction": {"bias_correction": True},
    "learned rounding": {"learned_rounding": True, "freeze_weights": True},
    "everything": {"equalization": True, "smooth_quant": True, "learned_rounding": True},
}
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


def rows(count: int = 50) -> list[torch.Tensor]:
    """Batches of two rows, one column of which is far larger than the others."""
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(2, 12, generator=generator) * torch.tensor([30.0] + [1.0] * 11) for _ in range(count)]


def chain() -> TransformationResult:
    """Two convolutions, between which some channels are far larger than others; for a backend that equalizes them."""
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
    model = net(lambda self, x: self.second(torch.relu(self.first(x))), first=first, second=second)
    first.weight.data *= (10.0 ** torch.linspace(-1, 1, 8))[:, None, None, None]
    second.weight.data /= (10.0 ** torch.linspace(-1, 1, 8))[None, :, None, None]
    return transform(model, images(1)[0], backend="tensorrt")


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
            data = part_of(images(), rank, max(1, size), seed=size)
            calibrate(model, data[:1], progress=False)  # scales of this rank alone, which are found again
            calibrate(model, data, progress=False, process_group=group)
            findings = [finding.tensor for finding in quantization_report(model).findings]
            found[method.value] = [digest(scales_of(model)), findings]
        return found

    return work


def corrected(size: int) -> Callable[[int], Any]:
    """By method that looks at samples, the whole model, its recipe, and what each of its layers costs."""

    def work(rank: int) -> Any:
        found: dict[str, Any] = {}
        for name, options in CORRECTIONS.items():
            model, batches = MODELS.get(name, (lambda: fused(residual_block()), images))
            data = part_of(batches(), rank, size, seed=size)
            settings: Any = {"progress": False, "process_group": dist.group.WORLD}
            quantized = quantize(model(), data, **options, **settings)
            recipe = quantization_recipe(quantized).to_json()
            applied = [each.outcome for each in quantization_report(quantized).corrections if each.cause is None]
            costs = {} if "freeze_weights" in options else sensitivity(quantized, data, **settings).to_dict()
            found[name] = [digest(quantized.state_dict()), recipe, costs, len(applied)]
        # As a sampler does that makes shards equally long: the samples that are learned from stay.
        padded = [*part_of(images(), rank, size, seed=size), images()[0]]
        quantized = quantize(fused(residual_block()), padded, bias_correction=True, **settings)
        found["padded"] = digest(quantized.state_dict())
        return found

    return work


def learned_average(rank: int) -> Any:
    """By a moving average, which has an order."""
    average = TensorQuantConfig(calibration_method=CalibrationMethod.MOVING_AVERAGE)
    model = inserted(residual_block(), QuantConfig(activation=average))
    return calibrate(model, images()[rank::2], progress=False, process_group=dist.group.WORLD)


def other_settings(rank: int) -> Any:
    """Rank 1 asks for something else."""
    data = images()[rank::2]
    options: Any = {"bias_correction": rank == 1, "progress": False, "process_group": dist.group.WORLD}
    return len(list(quantize(fused(residual_block()), data, **options).modules()))


def read_once(rank: int) -> Any:
    """Data that is gone when it has been read, where it is read twice."""
    data = iter(images()[rank::2])
    quantize(fused(residual_block()), data, equalization=True, progress=False, process_group=dist.group.WORLD)


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


MODELS: dict[str, tuple[Callable[[], TransformationResult], Callable[[], list[torch.Tensor]]]] = {
    "equalization": (chain, images),
    "smoothing": (lambda: fused(perceptron()), rows),
    "awq": (lambda: fused(perceptron()), rows),
    "everything": (lambda: fused(perceptron()), rows),
}


def main(folder: Path) -> dict[str, Any]:
    """Everything, by name."""
    post.BEAT, post.SILENCE = SILENCE / 8, SILENCE
    for name in ("equalization", "learned rounding"):  # imports what it needs, once for all
        quantize(chain(), images(1), **CORRECTIONS[name], progress=False)
    told: dict[str, Any] = {"failures": {}}
    told["scales"] = {size: run_ranks(max(1, size), scales(size), folder) for size in SIZES}
    told["corrected"] = {size: run_ranks(size, corrected(size), folder) for size in CORRECTED_SIZES}
    for what in FAILURES:
        told["failures"][what] = run_ranks(2, failing(what), folder)
    told["settings"] = run_ranks(2, other_settings, folder)
    told["read once"] = run_ranks(2, read_once, folder)
    told["moving average"] = run_ranks(2, learned_average, folder)
    told["findings"] = {size: run_ranks(size, found_in_parts(size), folder) for size in (1, 2)}
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))))
