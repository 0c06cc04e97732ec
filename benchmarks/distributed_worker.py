"""One rank of ``benchmarks/distributed.py``, which starts it: writes what came of it into ``FOLDER/RANK.json``.

torchrun --nproc-per-node=N benchmarks/distributed_worker.py FOLDER bits|failures|time MODEL [METHOD ...]
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from embedl_deploy import TransformationResult, transform
from embedl_deploy.errors import DistributedError
from embedl_deploy.quantize import (
    CalibrationMethod,
    Precision,
    QuantConfig,
    TensorQuantConfig,
    calibrate,
    insert_qdq,
    quantization_recipe,
    quantize,
)
from sentences import as_batches, calibration_sentences, load_encoder, transform_encoder
from torchvision_import import import_torchvision

#: Batches, pictures in each, and pixels on a side; batches that are timed, of the usual size.
BATCHES, BATCH, PIXELS, TIMED = 24, 4, 64, 24


def pictures(count: int, pixels: int, batch: int) -> list[Any]:
    """Random pictures of different contrast, batch by batch."""
    generator = torch.Generator().manual_seed(0)
    return [(0.5 + i % 5) * torch.randn(batch, 3, pixels, pixels, generator=generator) for i in range(count)]


def resnet18() -> tuple[TransformationResult, list[Any]]:
    """With random weights."""
    return transform(import_torchvision().models.resnet18(weights=None).eval(), backend="tensorrt"), pictures(
        BATCHES, PIXELS, BATCH
    )


def vit() -> tuple[TransformationResult, list[Any]]:
    """The vision transformer of torchvision, small: four layers of 128 channels, 64 patches."""
    settings = {"image_size": 64, "patch_size": 8, "num_layers": 4, "num_heads": 4, "hidden_dim": 128, "mlp_dim": 512}
    model = import_torchvision().models.VisionTransformer(**settings).eval()
    with torch.no_grad():  # its head is zero
        model.heads.head.weight.normal_(std=0.05)
    data = pictures(BATCHES, PIXELS, BATCH)
    return transform(model, data[0], backend="tensorrt"), data


def minilm() -> tuple[TransformationResult, list[Any]]:
    """MiniLM-L6 with its weights, and sentences."""
    encoder, tokenizer = load_encoder()
    batches = as_batches(tokenizer, calibration_sentences())
    result = transform_encoder(encoder, batches[0])
    return result, [(t[i : i + BATCH], m[i : i + BATCH]) for t, m in batches for i in range(0, len(t), BATCH)]


MODELS: dict[str, Callable[[], tuple[TransformationResult, list[Any]]]] = {
    "resnet18": resnet18,
    "vit": vit,
    "minilm": minilm,
}
#: By method, the options of ``quantize``.
METHODS: dict[str, dict[str, Any]] = {
    **{
        method.value: {"config": QuantConfig(activation=TensorQuantConfig(calibration_method=method))}
        for method in CalibrationMethod
        if method is not CalibrationMethod.MOVING_AVERAGE
    },
    "equalization": {"equalization": True},
    "SmoothQuant": {"smooth_quant": True},
    "AWQ": {"awq": True, "config": QuantConfig(None, TensorQuantConfig(Precision.INT4, per_channel=True))},
    "bias correction": {"bias_correction": True},
    "learned rounding": {"learned_rounding": True},
}


def part_of(batches: list[Any], rank: int, size: int) -> list[Any]:
    """An uneven part of the batches in an order of its own: rank r has 1 + r shares."""
    shuffled = random.Random(size).sample(batches, len(batches))
    shares = [rank_of for rank_of in range(size) for _ in range(1 + rank_of)]
    return [batch for i, batch in enumerate(shuffled) if shares[i % len(shares)] == rank]


def bits(model: str, methods: list[str]) -> dict[str, str]:
    """By method, a hash of all tensors and of the recipe; all methods where none is named."""
    torch.manual_seed(0)
    result, batches = MODELS[model]()
    data = part_of(batches, dist.get_rank(), dist.get_world_size())
    found = {}
    for name in methods or METHODS:
        options = METHODS[name]
        quantized = quantize(result, data, **options, progress=False, process_group=dist.group.WORLD)
        digest = hashlib.sha256(quantization_recipe(quantized).to_json().encode())
        for key, tensor in sorted(quantized.state_dict().items()):
            digest.update(key.encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        found[name] = digest.hexdigest()
    return found


def failures(what: str, folder: Path) -> dict[str, Any]:
    """What is raised where rank 1 fails."""
    torch.manual_seed(0)
    rank = dist.get_rank()
    wrong = rank == 1
    result, batches = resnet18()
    if wrong and what == "has another model":
        result.model.get_submodule("conv1").conv.weight.data[0] += 1
    data = part_of(batches, rank, 3)

    def note_beginning() -> None:
        (folder / "began.json").write_text(json.dumps({"time": time.time()}))

    def run(model: torch.nn.Module) -> None:
        for i, batch in enumerate(data):
            if wrong and i == 3 and what in ("is killed", "raises"):
                note_beginning()
                if what == "is killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError("the disk is gone")
            model(batch)

    dist.barrier()
    if wrong:
        note_beginning()
    given: Any = [] if wrong and what == "has no data" else run
    try:
        quantize(result, given, bias_correction=True, progress=False, process_group=dist.group.WORLD)
    except DistributedError as error:
        return {"ranks": [str(rank) for rank in error.ranks], "message": str(error), "time": time.time()}
    return {}


def seconds_of(function: Callable[[], object]) -> float:
    """How long a call takes, from when all ranks begin."""
    dist.barrier()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def timing(model: str) -> dict[str, Any]:
    """How long calibration takes, and how much of it is more than without a group."""
    torch.manual_seed(0)
    result, _ = MODELS[model]()
    batches = pictures(TIMED, 224, BATCH)
    data = batches[dist.get_rank() :: dist.get_world_size()]
    config = QuantConfig(activation=TensorQuantConfig(calibration_method=CalibrationMethod.ENTROPY))
    quantized = insert_qdq(result.model, result.matches, config)

    def together() -> object:
        return calibrate(quantized, data, progress=False, process_group=dist.group.WORLD)

    together()  # warm up
    times, overheads = [], []
    for _ in range(2):
        times.append(seconds_of(together))
        alone = torch.tensor(seconds_of(lambda: calibrate(quantized, data, progress=False)))
        dist.all_reduce(alone, dist.ReduceOp.MAX)
        overheads.append(times[-1] / float(alone) - 1)
    return {"seconds": min(times), "overheads": overheads}


def main() -> None:
    """Do one thing, and write what came of it."""
    folder, what, argument = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group("gloo")
    functions: dict[str, Callable[[], dict[str, Any]]] = {
        "bits": lambda: bits(argument, sys.argv[4:]),
        "failures": lambda: failures(argument, folder),
        "time": lambda: timing(argument),
    }
    found = functions[what]()
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))
    if what != "failures":
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
