"""What a compiler makes of one thing that is written in several ways; prints a table.

    python benchmarks/graph_forms.py [--target NAME] [--parts NAME …] [--layers TEXT] [--json FILE]

Parts of a block of ViT-B/16 and of Swin-T are written as ONNX files in float16, with quantizers or without, and
compiled by TensorRT for RTX, which needs no GPU. Weights are random: layers and traffic do not depend on them. Columns:
kernels, bytes of activations that they read and write, and the kernels by what they do. ``--layers`` also lists every
kernel of the forms whose name holds a text. It takes a minute.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from embedl_deploy import compile  # noqa: A004
from embedl_deploy.engine import EngineReport
from forms import PROJECTIONS, attention, convolutions, mlp, quantized_attention, window_attention, windows
from measurement import describe_machine, make_console

ALL = {"first": "int8", "between": "int8", "second": "int8"}
FORMS: dict[str, dict[str, Any]] = {
    "attention of ViT-B/16, float16": {
        "as torch's exporter writes it": partial(attention, scale="torch"),
        **{name: partial(attention, name) for name in PROJECTIONS},
        **{f"scale on {where}": partial(attention, scale=where) for where in ("both", "key", "scores", "weights")},
        "operator Attention": partial(attention, operator="4-D"),
        "operator Attention, one product, split": partial(attention, "one product, split, then heads", operator="4-D"),
        **{f"{length} tokens": partial(attention, length=length) for length in (196, 200, 208)},
    },
    "attention of ViT-B/16, quantized": {
        "INT8 everywhere": partial(quantized_attention, "int8", apart="int8", out="int8"),
        "FP8 everywhere": partial(quantized_attention, "fp8", apart="fp8", out="fp8"),
        "FP8 everywhere, q, k, v before they are split": partial(quantized_attention, "fp8", "fp8", out="fp8"),
        "FP8 but for the first product": partial(quantized_attention, apart="fp8", out="fp8"),
        "the same, three scales": partial(quantized_attention, apart="fp8", scales=(0.05, 0.06, 0.07), out="fp8"),
        "the same, before they are split": partial(quantized_attention, packed="fp8", out="fp8"),
        "FP8 for q, k, v and the softmax alone": partial(quantized_attention, packed="fp8"),
        "the same without the softmax": partial(quantized_attention, packed="fp8", softmax=False),
        "INT8 but for the first product": partial(quantized_attention, packed="int8", out="int8"),
        "out-projection in FP8 alone": partial(quantized_attention, out="fp8"),
    },
    "MLP of ViT-B/16": {
        "float16": mlp,
        "float16, ReLU": partial(mlp, activation="Relu"),
        "INT8": partial(mlp, **ALL),
        "INT8, one scale for weights": partial(mlp, **ALL, per_channel=False),
        "INT8, no bias, ReLU": partial(mlp, **ALL, bias=False, activation="Relu"),
        "INT8, no bias, ReLU, one scale for weights": partial(
            mlp, **ALL, bias=False, activation="Relu", per_channel=False
        ),
        "FP8": partial(mlp, "fp8", "fp8", "fp8"),
        "INT8 second product": partial(mlp, between="int8", second="int8"),
        "INT8 second product, ReLU": partial(mlp, between="int8", second="int8", activation="Relu"),
        "INT8 first product": partial(mlp, "int8"),
        "FP8 second product": partial(mlp, between="fp8", second="fp8"),
        "FP8 between, weights in float16": partial(mlp, between="fp8"),
    },
    "convolutions": {
        "float16": convolutions,
        "FP8 between": partial(convolutions, "fp8"),
        "FP8 second convolution": partial(convolutions, "fp8", "fp8"),
        "INT8 second convolution": partial(convolutions, "int8", "int8"),
    },
    "windows of Swin-T": {
        "norm, then windows": partial(windows, "before", shift=0),
        "windows, then norm": partial(windows, shift=0),
        "norm, then shifted windows": partial(windows, "before"),
        **{
            f"shifted windows by {roll}, then norm": partial(windows, roll=roll)
            for roll in ("Slice and Concat", "Gather", "one Gather")
        },
    },
    "attention of Swin-T": {
        **{f"{heads} heads": partial(window_attention, heads, count) for heads, count in ((3, 64), (6, 16), (12, 4))},
        "6 heads, no bias": partial(window_attention, bias=""),
        "6 heads, bias from a table": partial(window_attention, bias="table"),
        "6 heads, mask": partial(window_attention, mask="constant"),
        "6 heads, mask, FP8": partial(window_attention, mask="constant", number_format="fp8"),
        "6 heads, mask, INT8": partial(window_attention, mask="constant", number_format="int8"),
    },
}


def build(form: Any, target: str) -> EngineReport:
    """Write a form and compile it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "form.onnx"
        graph, output = form()
        graph.save(path, output)
        done = compile(path, path.with_suffix(".engine"), backend="tensorrt", target=target, progress=False)
        return done.report


def kernels_of(report: EngineReport) -> str:
    """The kernels by what they do."""
    counts = Counter(layer.kind.value for layer in report.layers if layer.is_kernel)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def layers_of(report: EngineReport) -> list[str]:
    """A line for each kernel."""
    lines = []
    for layer in report.layers:
        sides = (" ".join(f"{t.dtype}{list(t.shape)}" for t in side) for side in (layer.inputs, layer.outputs))
        moved = (layer.bytes_read + layer.bytes_written) / 1e6
        lines.append(f"  {moved:6.3f} MB {layer.kind.value}: {layer.name}: " + " → ".join(sides))
    return lines


def show(part: str, reports: dict[str, EngineReport], console: Console) -> None:
    """Print a part's table."""
    table = Table(
        "form", "kernels", "act MB", "what they do", box=None, pad_edge=False, title=part, title_justify="left"
    )
    for name, report in reports.items():
        table.add_row(name, str(report.kernels), f"{report.activation_bytes / 1e6:.2f}", kernels_of(report))
    console.print(table)


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="sm89")
    parser.add_argument("--parts", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--layers", metavar="TEXT")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = make_console()
    console.print(describe_machine(1), highlight=False)
    found: dict[str, dict[str, Any]] = {}
    for part in arguments.parts:
        reports = {name: build(form, arguments.target) for name, form in FORMS[part].items()}
        console.print(f"{next(iter(reports.values())).compiler}, {arguments.target}", highlight=False)
        show(part, reports, console)
        for name, report in reports.items():
            if arguments.layers is not None and arguments.layers in name:
                console.print(name, *layers_of(report), sep="\n", highlight=False, markup=False)
        found[part] = {name: report.to_dict() for name, report in reports.items()}
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
