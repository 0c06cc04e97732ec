"""INT8 in ONNX Runtime, in milliseconds: embedl-deploy against ONNX Runtime's own quantizers, and NNCF; prints a table.

    python benchmarks/runtime.py [--networks NAME …] [--rounds N] [--seconds N] [--json FILE]

One image of 3×224×224, or one sentence, at a time, on this machine's processor. All files of a network are timed in
turns, round by round, with one thread and with two; a ratio is the median of the ratios within the rounds. Accuracy is
of the outputs on photographs, or sentences, that nothing was calibrated with, against the network in PyTorch in
float32. EfficientNet-Lite0 and MiniLM have their real weights. Those of the other networks are random, after one pass
in training mode that gives batch norms their statistics: times do not depend on them, and the accuracy says little.

The exit code is 1 if a goal is missed: with one thread a tuned engine slower than float32 or than ``quantize_static``
(by more than 2 %), or EfficientNet-Lite0 less than 3 dB better than ``quantize_static``.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from crops import random_crops
from embedl_deploy import transform
from embedl_deploy.verify import signal_to_noise
from engines import load
from measurement import describe_machine, make_console
from runtime_files import File, Network, embedl_deploy_files, outputs
from runtime_peers import exported, onnxruntime_files, openvino_files
from runtime_sessions import Sample, opened

NETWORKS = ("resnet50", "mobilenet_v3_large", "EfficientNet-Lite0", "vit_b_16", "convnext_tiny", "MiniLM")
CALIBRATION, HELD_OUT = 32, 64
THREADS = (1, 2)
#: As fast, within the noise.
EQUAL = 1.02
#: What EfficientNet-Lite0 has to gain over ``quantize_static``, in dB.
GAIN = 3.0


@dataclass(frozen=True)
class Row:
    """A file, measured.

    Attributes:
        network: Name of the network.
        file: The file.
        milliseconds: Median time of a run, by number of threads.
        ratio: Median of the times as a share of float32's in the same round, by number of threads.
        of_static: The same as a share of ``quantize_static``'s.
        sqnr: Of the outputs, in dB.
        agreement: Share of samples with the same likeliest class.
    """

    network: str
    file: File
    milliseconds: dict[int, float]
    ratio: dict[int, float]
    of_static: dict[int, float]
    sqnr: float
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        own = {"network": self.network, "row": self.file.name, "sqnr": self.sqnr, "agreement": self.agreement}
        made = {"megabytes": self.file.megabytes, "seconds": self.file.seconds}
        return {**own, **made, "milliseconds": self.milliseconds, "ratio": self.ratio, "of_static": self.of_static}


def prepare(name: str) -> Network:
    """A network with its weights, or random ones with sensible statistics, and its data."""
    if name == "MiniLM":
        return _sentence_encoder()
    model = load(name)
    images = random_crops(CALIBRATION, seed=1)
    if name != "EfficientNet-Lite0":
        _settle(model, images)
    samples = [[(image[None],) for image in crops] for crops in (images, random_crops(HELD_OUT, seed=2))]
    result = transform(model, samples[0][0], backend="onnxruntime")
    return Network(model, result, *samples, trained=name == "EfficientNet-Lite0", attention=name == "vit_b_16")


def _settle(model: nn.Module, images: torch.Tensor) -> None:
    """Statistics for batch norms, and a head that is not zero, as vit_b_16 begins with."""
    model.train()
    with torch.no_grad():
        model(images)
    model.eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.trunc_normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(0))


def _sentence_encoder() -> Network:
    from sentences import as_batches, calibration_sentences, held_out_sentences, load_encoder

    encoder, tokenizer = load_encoder()
    samples = []
    for sentences, count in ((calibration_sentences(), CALIBRATION), (held_out_sentences(), HELD_OUT)):
        batches = [batch for text in sentences for batch in as_batches(tokenizer, [text])]
        length = statistics.mode(batch[0].shape[1] for batch in batches)
        samples.append([batch for batch in batches if batch[0].shape[1] == length][:count])
    length = samples[0][0][0].shape[1]
    samples[1] = [batch for batch in samples[1] if batch[0].shape[1] == length] or samples[0]
    return Network(
        encoder, transform(encoder, samples[0][0], backend="onnxruntime"), *samples, trained=True, attention=True
    )


def timed(files: list[File], sample: Sample, threads: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each file, one run each in every round."""
    runs = {file.name: opened(file.path, threads) for file in files}
    for run in runs.values():
        run(sample)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run(sample)
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def study(name: str, options: argparse.Namespace) -> list[Row]:
    """Make all files of a network, and measure them."""
    network = prepare(name)
    with torch.no_grad():
        reference = torch.cat([network.model(*sample) for sample in network.held_out])
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        files, plain = embedl_deploy_files(network, folder, options.seconds), exported(network, folder)
        files += [*onnxruntime_files(network, plain, folder), *openvino_files(network, plain, folder)]
        times = {threads: timed(files, network.held_out[0], threads, options.rounds) for threads in THREADS}
        rows = []
        for file in files:
            found = outputs(file.path, network.held_out)
            same = float((found.flatten(1).argmax(1) == reference.flatten(1).argmax(1)).float().mean())
            medians = {threads: statistics.median(times[threads][file.name]) for threads in THREADS}
            ratios = [
                {threads: _ratio(times[threads], file.name, other) for threads in THREADS}
                for other in ("float32", "quantize_static")
            ]
            rows.append(Row(name, file, medians, *ratios, signal_to_noise(reference, found), same))
        return rows


def _ratio(times: dict[str, list[float]], name: str, against: str) -> float:
    return statistics.median(a / b for a, b in zip(times[name], times[against], strict=True))


def main() -> int:
    """Measure every network and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=120.0, help="for each search; 0 leaves it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    options = parser.parse_args()
    console, rows = make_console(), []
    for name in options.networks:
        console.print(f"… {name}", highlight=False)
        rows += study(name, options)
        if options.json is not None:
            options.json.write_text(json.dumps([row.to_dict() for row in rows], indent=1), encoding="utf-8")
    show(rows, console)
    missed = missed_goals(rows)
    for line in missed:
        console.print(line, highlight=False)
    return 1 if missed else 0


def show(rows: list[Row], console: Console) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False)
    columns = (
        "network",
        "file",
        "ms, 1 thread",
        "of float32",
        "of static",
        "ms, 2 threads",
        "of float32",
        "of static",
        "SQNR dB",
        "same top-1 %",
    )
    for column in (*columns, "MB", "s to make"):
        table.add_column(column, justify="left" if column in ("network", "file") else "right")
    for row in rows:
        times = [text for n in THREADS for text in _speed(row, n)]
        accuracy = (f"{row.sqnr:.1f}", f"{100 * row.agreement:.1f}")
        table.add_row(
            row.network, row.file.name, *times, *accuracy, f"{row.file.megabytes:.1f}", f"{row.file.seconds:.0f}"
        )
    console.print(table)
    console.print(describe_machine(max(THREADS), f"onnxruntime {onnxruntime.__version__}"), highlight=False)


def _speed(row: Row, threads: int) -> tuple[str, str, str]:
    return f"{row.milliseconds[threads]:.2f}", f"{row.ratio[threads]:.2f}", f"{row.of_static[threads]:.2f}"


def missed_goals(rows: list[Row]) -> list[str]:
    """What the goals are that were not reached, in words."""
    missed = []
    for network in dict.fromkeys(row.network for row in rows):
        by_name = {row.file.name: row for row in rows if row.network == network}
        tuned, static = by_name.get("INT8 tuned"), by_name["quantize_static"]
        if tuned is not None and tuned.ratio[1] > EQUAL:
            missed.append(f"{network}: tuned takes {tuned.ratio[1]:.2f} of float32's time; expected at most {EQUAL}")
        if tuned is not None and tuned.of_static[1] > EQUAL:
            missed.append(f"{network}: tuned takes {tuned.of_static[1]:.2f} of quantize_static's time")
        learned = by_name.get("INT8 mixed, learned")
        if network == "EfficientNet-Lite0" and learned is not None and learned.sqnr < static.sqnr + GAIN:
            missed.append(f"{network}: {learned.sqnr:.1f} dB; expected {GAIN} more than {static.sqnr:.1f}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
