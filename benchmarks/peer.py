"""From a PyTorch model to an INT8 ONNX file: embedl-deploy against NVIDIA ModelOpt, each in a fresh process.

    python benchmarks/peer.py [--rounds N] [--keep FOLDER]

**Cost.** resnet50 with weights from a fixed seed is quantized with 64 photographs, in batches of 8, and exported for
batch size 1 and opset 18. Time is taken from the start of the process to its end, imports included; memory is the
largest that the process, or one that it started, ever had resident. The two take turns, round by round, with the same
number of threads. The photographs are cut beforehand and read from one file by both.

**Accuracy.** Signal to quantization noise of the logits, and how often the likeliest class stays the same, of the
fake-quantized model against the float one on other photographs. resnet50 with random weights says little here;
EfficientNet-Lite0 has ImageNet weights. ModelOpt looks for convolutions by their exact class, which those of
EfficientNet-Lite0 are not, and leaves them in float; in the last row they are rewritten as a padding and one of
torch's own, so that both quantize the same layers.

ModelOpt is used as its guide for PyTorch has it: ``modelopt.torch.quantization.quantize`` in its default INT8
configuration (weights per channel, activations per tensor, calibrated by their extremes: the same as embedl-deploy's),
then ``torch.onnx.export`` through TorchScript, for which it brings the translations. Of the other ways that ModelOpt
0.47.0 has, with torch 2.13, the first was tried and fails; the others were judged by their source and requirements:

- ``torch.onnx.export(dynamo=True)``, torch's own default, fails: ModelOpt's quantizers branch on values (``Could not
  guard on data-dependent expression``).
- ``get_onnx_bytes_and_metadata``, the function that its example scripts call, exports in the same way and then passes
  over the file several times more. It needs the extra ``onnx``, which asks for an older onnx and for CuPy.
- Its quantizer of ONNX files needs the same extra; it is another path than the one compared here.

Both do the same: embedl-deploy's comparison of the file with PyTorch in ONNX Runtime, of which ModelOpt has no
counterpart, is switched off. What embedl-deploy does besides, inside the time: fold batch norm, check the file with
``onnx.checker``. The exit code is 1 if a ratio is over its limit.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from measurement import describe_machine, make_console, median_of_pairs, print_measurements

# Each side must pay for its own imports, and the process that measures must stay small: a process is charged for the
# memory of the one that started it. So nothing large is imported here.
if TYPE_CHECKING:
    import torch
    from torch import nn

IMAGES, BATCH, HELD_OUT, OPSET = 64, 8, 96, 18
TIME_LIMIT, MEMORY_LIMIT = 0.8, 1.0
SIDES = {"embedl-deploy": "embedl-deploy-core", "ModelOpt": "nvidia-modelopt"}


def random_resnet50() -> "nn.Module":
    """resnet50, its weights from a fixed seed."""
    import torch

    from torchvision_import import import_torchvision

    torch.manual_seed(0)
    model: nn.Module = import_torchvision().models.resnet50(weights=None)
    return model.eval()


def efficientnet() -> "nn.Module":
    """EfficientNet-Lite0 with its ImageNet weights."""
    from network import load_network

    return load_network()


def plain_efficientnet() -> "nn.Module":
    """The same, each convolution of its own kind rewritten as a padding and a plain convolution."""
    from torch import nn

    model = efficientnet()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and type(child) is not nn.Conv2d:
                settings = (child.in_channels, child.out_channels, child.kernel_size, child.stride)
                plain = nn.Conv2d(
                    *settings, padding=0, dilation=child.dilation, groups=child.groups, bias=child.bias is not None
                )
                plain.weight, plain.bias = child.weight, child.bias
                setattr(parent, name, nn.Sequential(child.static_padding, plain))
    return model.eval()


MODELS: dict[str, Callable[[], "nn.Module"]] = {
    "resnet50, random weights": random_resnet50,
    "EfficientNet-Lite0": efficientnet,
    "EfficientNet-Lite0, plain convolutions": plain_efficientnet,
}


def quantize_here(model: "nn.Module", images: "torch.Tensor") -> "nn.Module":
    """Quantize and calibrate with embedl-deploy."""
    from embedl_deploy import transform
    from embedl_deploy.quantize import quantize

    return quantize(transform(model, images[:1], backend="tensorrt"), images.split(BATCH), progress=False)


def export_here(model: "nn.Module", image: "torch.Tensor", path: Path) -> None:
    """Export with embedl-deploy."""
    from embedl_deploy import export_onnx

    export_onnx(model, image, path, opset=OPSET, tolerance=None)


def quantize_there(model: "nn.Module", images: "torch.Tensor") -> "nn.Module":
    """Quantize and calibrate with ModelOpt."""
    import modelopt.torch.quantization as mtq

    def forward_loop(model: "nn.Module") -> None:
        for batch in images.split(BATCH):
            model(batch)

    quantized: nn.Module = mtq.quantize(model, mtq.INT8_DEFAULT_CFG, forward_loop)
    return quantized


def export_there(model: "nn.Module", image: "torch.Tensor", path: Path) -> None:
    """Export as ModelOpt's guide does."""
    import torch

    with torch.no_grad():
        torch.onnx.export(model, (image,), os.fspath(path), opset_version=OPSET, dynamo=False)


def quantized_weights(model: "nn.Module") -> int:
    """How many weights have a quantizer that is at work, of either kind."""
    from embedl_deploy.modules import WeightFakeQuantize

    here = sum(isinstance(m, WeightFakeQuantize) and m.quantizer is not None for m in model.modules())
    there = sum(n.endswith("weight_quantizer") and getattr(m, "is_enabled", False) for n, m in model.named_modules())
    return here + there


def prepare(folder: Path) -> None:
    """Cut photographs to calibrate with and others to judge by, into files."""
    import torch

    from crops import random_crops

    torch.save(random_crops(IMAGES, seed=1), folder / "calibration.pt")
    torch.save(random_crops(HELD_OUT, seed=2), folder / "held_out.pt")


def work(side: str, folder: Path) -> None:
    """What is timed: model, quantization, file."""
    import torch

    quantize, export = (quantize_here, export_here) if side == "embedl-deploy" else (quantize_there, export_there)
    images = torch.load(folder / "calibration.pt")
    export(quantize(random_resnet50(), images), images[:1], folder / f"{side}.onnx")


def judge(side: str, folder: Path) -> dict[str, dict[str, float]]:
    """For each model, how close its quantized logits are to the float ones."""
    import torch

    from embedl_deploy.verify import signal_to_noise

    quantize = quantize_here if side == "embedl-deploy" else quantize_there
    images, held_out = torch.load(folder / "calibration.pt"), torch.load(folder / "held_out.pt")
    found = {}
    for name, make in MODELS.items():
        model = make()
        layers = sum(isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)) for part in model.modules())
        with torch.no_grad():
            exact = torch.cat([model(batch) for batch in held_out.split(BATCH)])
            quantized = quantize(model, images)
            rounded = torch.cat([quantized(batch) for batch in held_out.split(BATCH)])
        found[name] = {
            "sqnr": signal_to_noise(exact, rounded),
            "agreement": float(100 * (rounded.argmax(1) == exact.argmax(1)).double().mean()),
            "weights": quantized_weights(quantized),
            "layers": layers,
        }
    return found


@dataclass(frozen=True)
class Run:
    """What one process cost: seconds, and megabytes at its peak."""

    seconds: float
    megabytes: float


def run(*arguments: str, log: Path) -> Run:
    """Run this file in a process of its own.

    Raises:
        RuntimeError: It failed; its last lines are in the message.
    """
    with log.open("w") as output:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)  # the larger of the process and of those that it waited for
        elapsed = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n" + "\n".join(log.read_text().splitlines()[-15:]))
    return Run(elapsed, usage.ru_maxrss * 1024 / 1e6)


def print_accuracy(console: Console, found: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print both sides' accuracy, model by model."""
    table = Table(box=None, pad_edge=False)
    for column in ("model", "by", "weights quantized", "SQNR dB", "top-1 agreement %"):
        table.add_column(column, justify="left" if column in ("model", "by") else "right")
    for name in MODELS:
        for side in SIDES:
            row: dict[str, Any] = found[side][name]
            weights = f"{row['weights']} of {row['layers']}"
            table.add_row(name, side, weights, f"{row['sqnr']:.1f}", f"{row['agreement']:.1f}")
    console.print(table)


def compare(rounds: int, keep: Path | None) -> bool:
    """Measure, print both tables, and return whether the ratios are within their limits; keep the files if asked."""
    console = make_console()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run("prepare", name, log=folder / "log")
        runs = {side: [] for side in SIDES}  # type: dict[str, list[Run]]
        for index in range(rounds + 1):
            for side in SIDES if index % 2 else reversed(SIDES):
                cost = run("work", name, "--side", side, log=folder / "log")
                if index > 0:  # the first round finds files that are not in memory yet
                    runs[side].append(cost)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for side in SIDES:
                shutil.copy(folder / f"{side}.onnx", keep)
        sizes = {side: (folder / f"{side}.onnx").stat().st_size / 1e6 for side in SIDES}
        accuracy = {}
        for side in SIDES:
            run("judge", name, "--side", side, log=folder / "log")
            accuracy[side] = json.loads((folder / f"{side}.json").read_text())
    threads = os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 0
    packages = [f"{package} {version(package)}" for package in ("torch", "nvidia-modelopt", "embedl-deploy-core")]
    console.print(describe_machine(int(threads), *packages), highlight=False)
    here, there = runs.values()
    what, against = "resnet50 to INT8 ONNX, embedl-deploy", "ModelOpt"
    rows = [
        median_of_pairs(
            f"time: {what}", against, TIME_LIMIT, [(a.seconds, b.seconds) for a, b in zip(here, there, strict=True)]
        ),
        median_of_pairs(
            f"peak memory: {what}",
            against,
            MEMORY_LIMIT,
            [(a.megabytes, b.megabytes) for a, b in zip(here, there, strict=True)],
            "MB",
            0,
        ),
    ]
    met = print_measurements(console, rows)
    spread = "; ".join(
        f"{side}: {statistics.median(r.seconds for r in found):.1f} s "
        f"({min(r.seconds for r in found):.1f} to {max(r.seconds for r in found):.1f}), file {sizes[side]:.1f} MB"
        for side, found in runs.items()
    )
    console.print(f"{rounds} rounds; {spread}\n", highlight=False)
    print_accuracy(console, accuracy)
    return met


def main() -> int:
    """Compare; or do one part of it, in the processes that this starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each side (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the ONNX files, to check and compile them")
    parser.add_argument("part", nargs="?", choices=("prepare", "work", "judge"), help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=tuple(SIDES), default="embedl-deploy", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "prepare":
        prepare(options.folder)
    elif options.part == "work":
        work(options.side, options.folder)
    elif options.part == "judge":
        (options.folder / f"{options.side}.json").write_text(json.dumps(judge(options.side, options.folder)))
    else:
        return 0 if compare(options.rounds, options.keep) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
