"""The same photographs classified by a float32 and an INT8 engine of ONNX Runtime on this machine, and timed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from embedl_deploy import CompileResult, TransformationResult, compile, export_onnx, transform  # noqa: A004
from embedl_deploy.compiling import Engine, benchmark_together, load_engine
from embedl_deploy.engine import Timing
from embedl_deploy.quantize import QuantConfig, quantize
from quantization import Accuracy, CropStudy

#: How long each engine is timed.
SECONDS = 2.0
_FORMATS = ("float32", "INT8, policy mixed")


@dataclass(frozen=True)
class OnThisMachine:
    """What was compiled for the processor here, and what came of running it.

    Attributes:
        results: Of the compiler: float32, then INT8.
        timings: Of one photograph at a time, in the same order; both engines took turns.
        accuracies: Of the engines' own logits on the held-out crops.
        logits: Of the photographs, (N, classes) for each engine.
    """

    results: tuple[CompileResult, ...]
    timings: tuple[Timing, ...]
    accuracies: tuple[Accuracy, ...]
    logits: tuple[torch.Tensor, ...]


def classify_here(
    network: nn.Module, photos: torch.Tensor, study: CropStudy, output: Path, step: Callable[[str], None]
) -> OnThisMachine:
    """Transform for ONNX Runtime, quantize, export, compile, run and time.

    Args:
        network: The original.
        photos: (N, 3, 224, 224).
        study: Crops to calibrate with, and others to judge by.
        output: Folder for the files.
        step: Is told what begins.
    """
    step("for the processor of this machine: transforming and quantizing")
    one = photos[:1]
    result: TransformationResult = transform(network, one, backend="onnxruntime")
    batches = study.calibration.split(16)
    quantized = quantize(result, batches, QuantConfig(policy="mixed"), bias_correction=True, progress=False)
    results: list[CompileResult] = []
    for name, model in (("float32", result), ("int8", quantized)):
        step(f"for the processor of this machine: compiling in {name}")
        file = output / f"processor_{name}.onnx"
        export_onnx(model, one, file, integer_weights=name == "int8")
        results.append(compile(file, backend="onnxruntime", progress=False))
    engines = [load_engine(result.path, backend="onnxruntime") for result in results]
    step("classifying the photographs with both engines, in turns")
    timings = benchmark_together(engines, one, seconds=SECONDS)
    step("comparing both engines on the held-out crops")
    accuracies = tuple(study.compare(run_each(engine, study.held_out)) for engine in engines)
    return OnThisMachine(tuple(results), timings, accuracies, tuple(run_each(engine, photos) for engine in engines))


def run_each(engine: Engine, images: torch.Tensor) -> torch.Tensor:
    """Logits of images that an engine is given one by one, (N, classes)."""
    return torch.cat([next(iter(engine.run(image).values())) for image in images.split(1)])


def show_machine(console: Console, found: OnThisMachine, photos: list[str], names: list[str]) -> None:
    """Print what both engines see, and how long they take."""
    first = found.results[0].report
    console.print(f"On this machine: {first.compiler}, {first.target}, one photograph at a time", highlight=False)
    seen = Table(box=None, pad_edge=False)
    for column in ("photograph", *_FORMATS):
        seen.add_column(column)
    for index, photo in enumerate(photos):
        seen.add_row(photo, *(_best(logits[index], names) for logits in found.logits))
    console.print(seen)
    console.print()
    table = Table(box=None, pad_edge=False)
    columns = ("", "a photograph", "half of the runs", "products in integers", "SQNR", "same top-1", "engine")
    for column in columns:
        table.add_column(column, justify="left" if not column else "right")
    for name, result, timing, accuracy in zip(_FORMATS, found.results, found.timings, found.accuracies, strict=True):
        low, high = (each * 1e3 for each in timing.quartiles)
        table.add_row(
            name,
            f"{timing.median * 1e3:.1f} ms",
            f"{low:.1f} to {high:.1f} ms",
            _in_integers(result),
            f"{accuracy.sqnr:.1f} dB",
            f"{accuracy.agreement:.1%}",
            f"{result.report.engine_bytes / 1e6:.1f} MB",
        )
    console.print(table)
    float32, int8 = found.timings
    console.print(
        f"INT8 takes {int8.median / float32.median:.2f} × the time of float32; both took turns, with "
        f"{int8.threads} thread{'' if int8.threads == 1 else 's'}. SQNR and top-1: what\n"
        "the engines say of the held-out crops, against PyTorch.",
        highlight=False,
    )


def _best(logits: torch.Tensor, names: list[str]) -> str:
    value, index = logits.softmax(dim=0).max(dim=0)
    return f"{names[int(index)]} {float(value):.1%}"


def _in_integers(result: CompileResult) -> str:
    """How many of the convolutions and matrix products have integer kernels."""
    counts = result.report.weighted_by_precision
    integers = sum(count for (_, precision), count in counts.items() if precision in ("uint8", "int8"))
    return f"{integers} of {sum(counts.values())}"
