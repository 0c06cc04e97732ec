"""What a compiler makes of six networks, in four formats, for three targets; prints a table.

    python benchmarks/engines.py [--networks NAME …] [--targets NAME …] [--json FILE]

Each network is exported in float16, in INT8 by the policies ``all``, ``mixed`` and ``rtx``, and in FP8 by ``all`` and
``rtx``, with float16 around the quantized places, for one image of 3×224×224, and compiled by TensorRT for RTX, which
needs no GPU. ``INT8 centered`` is ``all`` with centering, padded tensors too. Weights are random but for
EfficientNet-Lite0's: neither layers nor traffic depend on them, except which tensors centering finds on one side of
zero. Activation traffic is the sum over all kernels of the bytes of activations that they read and write. What the
compiler refuses is listed with the explanation, and where a policy leaves everything in float there is no row. A star
marks rows without the rewrites in ``LEFT_OUT``.

The exit code is 1 if FP16 or INT8 is refused anywhere.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from embedl_deploy import (
    TransformationResult,
    apply_transformation_plan,
    check,
    compile,  # noqa: A004
    export_onnx,
    get_transformation_plan,
    transform,
)
from embedl_deploy.engine import EngineReport, compare
from embedl_deploy.errors import CompileError, CompilerNotFoundError, QuantizationError
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantize
from measurement import describe_machine, make_console
from network import load_network
from torchvision_import import import_torchvision

NETWORKS = ("resnet50", "vit_b_16", "convnext_tiny", "swin_t", "mobilenet_v3_large", "EfficientNet-Lite0")
TARGETS = ("sm86", "sm89", "sm120")
_FP8 = (TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8, per_channel=True))
#: Formats and how they are asked for; ``None`` for no quantization.
FORMATS: dict[str, QuantConfig | None] = {
    "FP16": None,
    "INT8 all": QuantConfig(policy="all"),
    "INT8 centered": QuantConfig(policy="all"),
    "INT8 mixed": QuantConfig(policy="mixed"),
    "INT8 rtx": QuantConfig(policy="rtx"),
    "FP8": QuantConfig(*_FP8),
    "FP8 rtx": QuantConfig(*_FP8, policy="rtx"),
}
CENTERED = ("INT8 centered",)
MUST_COMPILE = ("FP16", "INT8 all", *CENTERED, "INT8 mixed", "INT8 mixed*")
#: Rewrites that the reports advise to leave out, node and pattern; the rows marked with a star are without them.
LEFT_OUT = {"resnet50": [("fc", "FlattenLinearToConv1x1Pattern")]}


def load(name: str) -> nn.Module:
    """A network in evaluation mode."""
    torch.manual_seed(0)
    if name == "EfficientNet-Lite0":
        return load_network()
    network: nn.Module = import_torchvision().models.get_model(name, weights=None)
    return network.eval()


def export(
    result: TransformationResult, config: QuantConfig | None, x: torch.Tensor, path: Path, *, centering: bool = False
) -> None:
    """Quantize with two images and export."""
    model: Any = result
    if config is not None:
        data = [torch.cat([x, torch.randn_like(x)])]
        model = quantize(result, data, config, centering=centering, progress=False)
    export_onnx(model, x, path, dtype=torch.float16, tolerance=None)


def row_of(network: str, name: str, target: str, path: Path, console: Console) -> dict[str, Any]:
    """Compile for a target."""
    row: dict[str, Any] = {"network": network, "format": name, "target": target}
    try:
        report = compile(path, path.with_suffix(f".{target}"), backend="tensorrt", target=target, progress=False).report
    except CompilerNotFoundError:
        raise
    except CompileError as error:
        console.print(f"{network}, {name}, {target}: {error}", highlight=False, markup=False)
        return {**row, "refused": str(error), "rules": list(error.rules)}
    return {
        **row,
        "kernels": report.kernels,
        "activation_mb": report.activation_bytes / 1e6,
        "weight_mb": report.weight_bytes / 1e6,
        "engine_mb": report.engine_bytes / 1e6,
        "seconds": report.build_seconds,
        "report": report,
    }


def study(network: str, targets: list[str], console: Console) -> list[dict[str, Any]]:
    """All formats of a network for all targets."""
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    result = transform(load(network), x, backend="tensorrt")
    formats = {name: (result, config) for name, config in FORMATS.items()}
    if network in LEFT_OUT:
        plan = get_transformation_plan(load(network), x, backend="tensorrt")
        for node, pattern in LEFT_OUT[network]:
            plan.disable(node, pattern)
        formats["INT8 mixed*"] = apply_transformation_plan(plan), FORMATS["INT8 mixed"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (result, config) in formats.items():
            start = time.perf_counter()
            path = Path(folder) / f"{network}_{name.replace(' ', '_').replace('*', '_left_out')}.onnx"
            try:
                export(result, config, x, path, centering=name in CENTERED)
            except QuantizationError as error:
                console.print(f"{network}, {name}: {str(error).partition(':')[0]}", highlight=False, markup=False)
                continue
            seconds, checked = time.perf_counter() - start, check(path, backend="tensorrt")
            if not checked.ok:
                console.print(str(checked), highlight=False, markup=False)
            console.print(f"… {network}, {name}: exported in {seconds:.0f} s", highlight=False)
            rows += [row_of(network, name, target, path, console) for target in targets]
    return rows


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print the table, and which format moves the fewest bytes."""
    table = Table(box=None, pad_edge=False)
    for column in ("network", "format", "target", "kernels", "act MB", "weights MB", "engine MB", "build s"):
        table.add_column(column, justify="left" if column in ("network", "format", "target") else "right")
    for row in rows:
        numbers = ("refused", ", ".join(row["rules"])) if "refused" in row else _numbers(row)
        table.add_row(row["network"], row["format"], row["target"], *numbers)
    console.print(table)
    for network in dict.fromkeys(row["network"] for row in rows):
        for target in dict.fromkeys(row["target"] for row in rows):
            of_both = [row for row in rows if (row["network"], row["target"]) == (network, target) and "report" in row]
            reports: dict[str, EngineReport] = {row["format"]: row["report"] for row in of_both}
            if "FP16" in reports and "INT8 mixed" in reports and target == rows[0]["target"]:
                verdict = compare(reports["FP16"], reports["INT8 mixed"]).verdict
                console.print(f"{network}, {target}: {verdict}", highlight=False, markup=False)


def _numbers(row: dict[str, Any]) -> tuple[str, ...]:
    megabytes = (f"{row[name]:.1f}" for name in ("activation_mb", "weight_mb", "engine_mb", "seconds"))
    return (str(row["kernels"]), *megabytes)


def main() -> int:
    """Compile everything and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--targets", nargs="+", default=TARGETS, help="compute capabilities (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the rows, without layers, to this file")
    options = parser.parse_args()
    console = make_console()
    console.print(describe_machine(torch.get_num_threads(), f"torch {torch.__version__}"), highlight=False)
    rows = [row for network in options.networks for row in study(network, list(options.targets), console)]
    show(rows, console)
    if options.json is not None:
        plain = [{key: value for key, value in row.items() if key != "report"} for row in rows]
        options.json.write_text(json.dumps(plain, indent=1))
    return 1 if any("refused" in row and row["format"] in MUST_COMPILE for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
