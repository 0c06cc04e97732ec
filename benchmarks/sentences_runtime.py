"""MiniLM-L6 in ONNX Runtime with ranges of each call, and with weights alone in INT8 and INT4.

    python benchmarks/sentences_runtime.py [--rounds N]

Model, sentences and comparison are those of ``sentences.py``: cosine similarity of held-out embeddings with those in
float, by the quantized model in PyTorch and by its file in ONNX Runtime with its own optimizations, which round the
activations of weight-only products to 8 bits in blocks. Products are counted in the optimized model. A sentence of 32
tokens is timed with one thread, all files in turns: the median time, and the median of the ratios to float32 within the
rounds. The exit code is 1 if no row of ranges of each call, or none of weights alone, reaches a mean cosine of 0.999.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from rich.table import Table

from embedl_deploy import TransformationResult, export_onnx, transform
from embedl_deploy.quantize import CalibrationMethod, LayerQuantConfig, QuantConfig, TensorQuantConfig, quantize
from embedl_deploy.sensitivity import sensitivity
from embedl_deploy_onnxruntime import DYNAMIC, WEIGHTS_4BIT, WEIGHTS_8BIT
from measurement import describe_machine, make_console
from runtime_sessions import feed
from sentences import (
    Batch,
    Similarity,
    as_batches,
    calibration_sentences,
    embed,
    held_out_sentences,
    load_encoder,
    open_sizes,
    similarity,
)

GOAL = 0.999
TOKENS = 32
#: The kernels of products with a weight.
PRODUCTS = ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits")
#: The second products of the perceptrons, which read a GELU, and both of each.
SECOND = [f"bert.encoder.layer.{layer}.output.dense" for layer in range(6)]
BOTH = [*SECOND, *(f"bert.encoder.layer.{layer}.intermediate.dense" for layer in range(6))]
WEIGHT_8BIT = LayerQuantConfig(None, TensorQuantConfig(per_channel=True))
CLIPPED_4BIT = replace(WEIGHTS_4BIT, weight=replace(WEIGHTS_4BIT.weight, calibration_method=CalibrationMethod.MSE))


@dataclass(frozen=True)
class Row:
    """A way to quantize, measured.

    Attributes:
        name: What it is.
        model: Cosine similarity of the model in PyTorch.
        file: Cosine similarity of the file in ONNX Runtime.
        kernels: Products of each kind in the optimized model.
        size: Of the file, in MB.
        seconds: To quantize.
        session: The file, opened with one thread.
    """

    name: str
    model: Similarity
    file: Similarity
    kernels: str
    size: float
    seconds: float
    session: onnxruntime.InferenceSession


@dataclass(frozen=True)
class Study:
    """The encoder, transformed for ONNX Runtime, and its data."""

    result: TransformationResult
    calibration: list[Batch]
    held_out: list[Batch]
    reference: torch.Tensor
    folder: Path

    def least_sensitive(self, count: int) -> list[str]:
        """Paths of the layers but for ``count`` whose weights in INT4 cost least."""
        quantized = quantize(self.result, None, CLIPPED_4BIT, progress=False)
        ranking = sensitivity(quantized, self.calibration, progress=False).ranking()
        return [layer.path for layer in ranking if "embeddings" not in layer.path][:-count]

    def measure(self, name: str, config: QuantConfig | None, **methods: Any) -> Row:
        """Quantize, export, and compare; ``None`` stands for float32."""
        start = time.perf_counter()
        data = self.calibration if methods else None
        model = self.result.model if config is None else quantize(self.result, data, config, progress=False, **methods)
        seconds = time.perf_counter() - start
        path = self.folder / "model.onnx"
        sizes = (open_sizes(), open_sizes())
        written = export_onnx(
            model, self.held_out[0], path, dynamic_shapes=sizes, integer_weights=config is not None, tolerance=None
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        options.optimized_model_filepath = str(self.folder / "optimized.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        counts = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
        kernels = ", ".join(f"{counts[kind]} {kind}" for kind in PRODUCTS if counts[kind])

        def run(*batch: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run(None, feed(session, batch))[0])

        found = [similarity(self.reference, embed(each, self.held_out)) for each in (model, run)]  # type: ignore[arg-type]  # called alike
        return Row(name, *found, kernels, written.size / 1e6, seconds, session)


def prepare(folder: Path) -> Study:
    """Load, tokenize, capture and transform."""
    encoder, tokenizer = load_encoder()
    calibration, held_out = (
        as_batches(tokenizer, sentences) for sentences in (calibration_sentences(), held_out_sentences())
    )
    tokens, mask = held_out[0]
    sizes = (open_sizes(), open_sizes())
    result = transform(encoder, (tokens[:2], mask[:2]), backend="onnxruntime", dynamic_shapes=sizes)
    return Study(result, calibration, held_out, embed(encoder, held_out), folder)


def measured(study: Study) -> list[Row]:
    """All rows, float32 first."""

    def in_8_bits(config: QuantConfig, paths: list[str]) -> QuantConfig:
        return replace(config, overrides={**(config.overrides or {}), **dict.fromkeys(paths, WEIGHT_8BIT)})

    smoothed, learned = {"smooth_quant": True}, {"learned_rounding": True}
    return [
        study.measure("float32", None),
        study.measure("dynamic", DYNAMIC),
        study.measure("dynamic, perceptrons weight-only", in_8_bits(DYNAMIC, BOTH)),
        study.measure("dynamic, SmoothQuant", DYNAMIC, **smoothed),
        study.measure("dynamic, SmoothQuant, 6 weight-only", in_8_bits(DYNAMIC, SECOND), **smoothed),
        study.measure("weights INT8", WEIGHTS_8BIT),
        study.measure("weights INT4", WEIGHTS_4BIT),
        study.measure("weights INT4 mse, learned", CLIPPED_4BIT, **learned),
        study.measure("… 32 of 36 in INT8", in_8_bits(CLIPPED_4BIT, study.least_sensitive(4)), **learned),
    ]


def timed(rows: list[Row], rounds: int) -> list[tuple[float, float]]:
    """For each row the median milliseconds, and the median of its time as a share of float32's in the same round."""
    tokens = torch.arange(1000, 1000 + TOKENS)[None]
    times: list[list[float]] = [[] for _ in rows]
    for number in range(rounds + 2):
        for row, kept in zip(rows, times, strict=True):
            given = feed(row.session, (tokens, torch.ones_like(tokens)))
            start = time.perf_counter()
            row.session.run(None, given)
            if number >= 2:  # warm by then
                kept.append(time.perf_counter() - start)
    ratios = [[own / one for own, one in zip(kept, times[0], strict=True)] for kept in times]
    return [(1e3 * statistics.median(kept), statistics.median(each)) for kept, each in zip(times, ratios, strict=True)]


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="how often each file is timed")
    options = parser.parse_args()
    console = make_console()
    console.print(describe_machine(1, f"onnxruntime {onnxruntime.__version__}"), highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(prepare(Path(folder)))
        times = timed(rows, options.rounds)
    table = Table(box=None, pad_edge=False)
    for column in ("", "PyTorch", "lowest", "runtime", "lowest", "MB", "ms", "of float32", "s", "products"):
        table.add_column(column, justify="left" if column in ("", "products") else "right")
    for row, (milliseconds, ratio) in zip(rows, times, strict=True):
        cosines = [f"{value:.4f}" for each in (row.model, row.file) for value in (each.mean, each.lowest)]
        speed = [f"{row.size:.1f}", f"{milliseconds:.2f}", f"{ratio:.2f}", f"{row.seconds:.1f}"]
        table.add_row(row.name, *cosines, *speed, row.kernels)
    console.print(table)
    best = {
        kind: max(min(r.model.mean, r.file.mean) for r in rows if r.name.startswith(kind))
        for kind in ("dynamic", "weights")
    }
    for kind, found in best.items():
        console.print(f"goal: {GOAL}; {kind}, at best: {found:.4f}", highlight=False)
    return 0 if min(best.values()) >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
