"""What quantization costs a language model: perplexity on text held out, for each format and method.

    python benchmarks/language.py [--only TEXT …] [--folder FOLDER] [--json FILE]

The model is small, and trained here (``language_model.py``); weights are kept in the folder. Perplexity is the
exponential of the mean negative log-likelihood of a token. Calibration windows are from the text that the model was
trained on. The exit code is 1 if the best row in INT4 is more than 2 % above the float model's perplexity, or the best
in NVFP4, of weights alone or with activations, more than 3 %.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from embedl_deploy import TransformationResult, transform
from embedl_deploy.quantize import CalibrationMethod, Precision, QuantConfig, TensorQuantConfig, freeze, quantize
from language_model import Settings, Trained, loss, trained_model
from measurement import describe_machine, make_console

#: Windows to calibrate with, and of a batch.
CALIBRATION, BATCH = 80, 8
#: Windows that are held out, at most.
HELD_OUT = 240
#: The largest perplexity of the best row whose name starts so, relative to the float model's.
GOALS = {"INT4": 1.02, "NVFP4": 1.03, "NVFP4 weights and activations": 1.03}

MSE = CalibrationMethod.MSE
AWQ, LEARNED = {"awq": True}, {"learned_rounding": True}
INT4 = TensorQuantConfig(Precision.INT4, block_size=32)
NVFP4, MXFP8 = TensorQuantConfig(Precision.NVFP4), TensorQuantConfig(Precision.MXFP8)
SMOOTH = {"smooth_quant": True}


def only(weight: TensorQuantConfig) -> QuantConfig:
    """Weights alone."""
    return QuantConfig(activation=None, weight=weight)


def both(precision: Precision) -> QuantConfig:
    """Activations with one scale, weights with one for each output."""
    return QuantConfig(TensorQuantConfig(precision), TensorQuantConfig(precision, per_channel=True))


ROWS: dict[str, tuple[QuantConfig, dict[str, Any]]] = {
    "INT8": (both(Precision.INT8), {}),
    "INT8, SmoothQuant": (both(Precision.INT8), SMOOTH),
    "FP8": (both(Precision.FP8), {}),
    "MXFP8 weights": (only(MXFP8), {}),
    "MXFP8 weights and activations": (QuantConfig(MXFP8, MXFP8), {}),
    "INT4 weights": (only(INT4), {}),
    "INT4 weights, AWQ": (only(INT4), AWQ),
    "INT4 weights, learned rounding": (only(INT4), LEARNED),
    "INT4 weights, AWQ, learned rounding": (only(INT4), AWQ | LEARNED),
    "NVFP4 weights": (only(NVFP4), {}),
    "NVFP4 weights, AWQ": (only(NVFP4), AWQ),
    "NVFP4 weights, AWQ, learned rounding": (only(NVFP4), AWQ | LEARNED),
    "NVFP4 weights and activations": (QuantConfig(NVFP4, NVFP4), {}),
    "NVFP4 weights and activations, SmoothQuant": (QuantConfig(NVFP4, NVFP4), SMOOTH),
    "NVFP4 weights and activations, SmoothQuant, AWQ": (QuantConfig(NVFP4, NVFP4), SMOOTH | AWQ),
    "NVFP4 weights and activations, learned rounding": (QuantConfig(NVFP4, NVFP4), LEARNED),
    "NVFP4 weights and activations, SmoothQuant, AWQ, learned rounding": (
        QuantConfig(NVFP4, NVFP4),
        SMOOTH | AWQ | LEARNED,
    ),
    "MXFP4 weights": (only(TensorQuantConfig(Precision.MXFP4)), {}),
    "MXFP4 weights, MSE": (only(TensorQuantConfig(Precision.MXFP4, calibration_method=MSE)), {}),
    "MXFP4 weights, AWQ, learned rounding": (only(TensorQuantConfig(Precision.MXFP4)), AWQ | LEARNED),
}


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        what: Format and method.
        perplexity: On the text held out.
        megabytes: Of the weights of the quantized products, with their scales; of all products in float.
        seconds: That quantization took.
    """

    what: str
    perplexity: float
    megabytes: float
    seconds: float


def windows_of(tokens: torch.Tensor, length: int, count: int) -> torch.Tensor:
    """Windows that do not overlap, spread evenly over a text, (count, length)."""
    whole = tokens[: len(tokens) // length * length].reshape(-1, length)
    chosen = torch.linspace(0, len(whole) - 1, min(count, len(whole))).long()
    return whole[chosen]


@torch.no_grad()
def perplexity(model: nn.Module, windows: torch.Tensor) -> float:
    """Exp of the mean negative log-likelihood of a token."""
    return math.exp(sum(float(loss(model, part)) * len(part) for part in windows.split(BATCH)) / len(windows))


def stored_megabytes(frozen: nn.Module, original: nn.Module) -> float:
    """Of the weights of products, in a file: numbers and scales of quantized ones, float16 for what is in float."""
    from embedl_deploy.quantize import IntegerWeight

    products = sum(part.weight.numel() for part in original.modules() if isinstance(part, nn.Linear))
    stored = [part for part in frozen.modules() if isinstance(part, IntegerWeight)]
    quantized = sum(part.values.numel() for part in stored)
    scales = sum(
        part.scale.numel() * (part.scale.itemsize if part.precision.has_scale_format else 2) for part in stored
    )
    numbers = sum(part.values.numel() * part.precision.bits / 8 for part in stored)
    return (numbers + scales + 2 * (products - quantized)) / 1e6


def measure(
    what: str, result: TransformationResult, trained: Trained, calibration: list[torch.Tensor], held_out: torch.Tensor
) -> Row:
    """Quantize in one way, and measure."""
    config, methods = ROWS[what]
    began = time.perf_counter()
    quantized = quantize(result, calibration, config, progress=False, **methods).eval()
    seconds = time.perf_counter() - began
    megabytes = stored_megabytes(freeze(quantized), trained.model)
    return Row(what, perplexity(quantized, held_out), megabytes, seconds)


def missed(rows: Sequence[Row], reference: float) -> list[str]:
    """The goals that no row meets, in words; of formats that were measured."""
    found = []
    for name, limit in GOALS.items():
        own = [row for row in rows if row.what.startswith(name)]
        best = min(own, key=lambda row: row.perplexity, default=None)
        if best is not None and best.perplexity > limit * reference:
            found.append(f"{best.what}: {best.perplexity / reference:.4f} of the float model's; goal {limit}")
    return found


def main() -> int:
    """Train or load, quantize in each way, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="TEXT", help="rows whose names hold one of these")
    parser.add_argument("--folder", type=Path, default=Path("build/language"), help="where trained weights are kept")
    parser.add_argument("--steps", type=int, default=Settings.steps, help="of training")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    console, settings = make_console(), Settings(steps=given.steps)
    trained = trained_model(given.folder, settings)
    held_out = windows_of(trained.held_out, settings.length, HELD_OUT)
    calibration = list(windows_of(trained.training, settings.length, CALIBRATION).split(BATCH))
    reference = perplexity(trained.model, held_out)
    result = transform(trained.model, calibration[0][:2], backend="tensorrt")
    products = sum(part.weight.numel() for part in trained.model.modules() if isinstance(part, nn.Linear))
    machine = describe_machine(torch.get_num_threads(), f"torch {torch.__version__}")
    console.print(f"{machine}; {trained.note}")
    console.print(
        f"{len(trained.training):,} tokens to train on, {held_out.numel():,} held out, {trained.bytes_per_token:.2f} "
        f"bytes each; {products / 1e6:.1f} million weights in products"
    )
    rows = [Row("float", reference, products * 2 / 1e6, 0.0)]
    for what in ROWS:
        if not given.only or any(text in what for text in given.only):
            rows.append(measure(what, result, trained, calibration, held_out))
            console.print(f"{what}: {rows[-1].perplexity:.3f}", style="dim")
    table = Table(box=None, pad_edge=False)
    for column in ("", "perplexity", "of float", "weights MB", "seconds"):
        table.add_column(column, justify="right" if column else "left")
    for row in rows:
        ratio = f"{row.perplexity / reference:.4f}"
        table.add_row(row.what, f"{row.perplexity:.3f}", ratio, f"{row.megabytes:.2f}", f"{row.seconds:.1f}")
    console.print(table)
    if given.json:
        given.json.write_text(json.dumps([vars(row) for row in rows], indent=2), encoding="utf-8")
    problems = missed(rows, reference)
    for problem in problems:
        console.print(f"missed: {problem}", style="red")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
