"""What searching where to quantize gains over fixed rules, for six networks; prints a table.

    python benchmarks/tuning.py [--networks NAME …] [--seconds N] [--objective NAME] [--keep DB] [--json FILE]

Each network is tuned for SM89 by the engines of TensorRT for RTX, which needs no GPU, with float16 around the quantized
places, for one image of 3×224×224. Weights are random but for EfficientNet-Lite0's, after one pass in training mode
that gives batch norms their statistics: neither layers nor traffic depend on them, and the accuracy says little. The
rows are the starts of the search, its result, and the best of another tool's files that the same compiler takes: see
``PEERS``.

The exit code is 1 if a result is worse than one of its starts.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from embedl_deploy import transform
from embedl_deploy.tuning import Trial, TuneResult, tune
from engines import NETWORKS, load
from measurement import describe_machine, make_console

DEVICE = "RTX 4090"
#: The quantized file of ModelOpt 0.47 with the least traffic, in engines of TensorRT for RTX 1.7.1 for SM89: MB of
#: activations, kernels, MB of the engine. Measured once, on a machine with 2 cores.
PEERS = {
    "resnet50": (115.0, 105, 34.5),
    "vit_b_16": (119.6, 113, 97.3),
    "convnext_tiny": (120.4, 129, 41.8),
    "swin_t": (321.8, 292, 73.7),
    "mobilenet_v3_large": (67.5, 137, 21.1),
}


def study(network: str, arguments: argparse.Namespace) -> TuneResult:
    """Tune one network."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(1, 3, 224, 224, generator=generator) for _ in range(2)]
    model = load(network)
    if network != "EfficientNet-Lite0":
        model.train()
        with torch.no_grad():
            model(torch.cat(images))
        model.eval()
        for parameter in model.parameters():  # a head of zeros, as vit_b_16 begins with, gives nothing to compare
            if parameter.dim() > 1 and not parameter.any():
                torch.nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
    result = transform(model, images[0], backend="tensorrt")
    how = {"objective": arguments.objective, "keep": arguments.keep, "seconds": arguments.seconds}
    return tune(result, images, target="sm89", progress=False, **how)


def show(results: dict[str, TuneResult], console: Console) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False)
    for column in ("network", "candidate"):
        table.add_column(column)
    for column in ("act MB", "kernels", "engine MB", f"{DEVICE} µs", "SQNR dB", "points", "builds", "seconds"):
        table.add_column(column, justify="right")
    for network, result in results.items():
        for trial in result.trials:
            if trial.start:
                table.add_row(network, trial.name, *_numbers(trial), "", "")
        counts = (str(result.builds), f"{result.seconds:.0f}" + ("" if result.finished else ", not finished"))
        table.add_row(network, "tuned", *_numbers(result.best), *counts)
        if network in PEERS:
            moved, kernels, size = PEERS[network]
            table.add_row(network, "ModelOpt", f"{moved:.1f}", str(kernels), f"{size:.1f}", *[""] * 5)
    console.print(table)


def _numbers(trial: Trial) -> tuple[str, ...]:
    if not trial.totals:
        return ("", "", "", "", f"{trial.accuracy:.1f}", str(trial.quantized))
    megabytes = (trial.totals[name] / 1e6 for name in ("activation_bytes", "engine_bytes"))
    moved, size = (f"{value:.1f}" for value in megabytes)
    bound = f"{trial.estimates[DEVICE] * 1e6:.0f}"
    return (moved, str(trial.totals["kernels"]), size, bound, f"{trial.accuracy:.1f}", str(trial.quantized))


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--objective", default="activation_bytes")
    parser.add_argument("--keep", type=float)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = make_console()
    console.print(describe_machine(torch.get_num_threads()), highlight=False)
    results: dict[str, TuneResult] = {}
    for network in arguments.networks:
        results[network] = study(network, arguments)
        console.print(f"{network}\n{results[network]}", highlight=False, markup=False)
    show(results, console)
    if arguments.json is not None:
        plain: dict[str, Any] = {network: result.to_dict() for network, result in results.items()}
        arguments.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    wrong = [
        network
        for network, result in results.items()
        if any(trial.objective < result.best.objective for trial in result.trials if trial.start)
    ]
    for network in wrong:
        console.print(f"{network}: the result is worse than a start", style="red")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
