"""The main job on real input: EfficientNet-Lite0 with ImageNet weights, from PyTorch to engines, timed here."""

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import nn

from embedl_deploy import (
    TransformationResult,
    apply_transformation_plan,
    export_onnx,
    get_transformation_plan,
    transform,
)
from embedl_deploy.export import run_onnx
from embedl_deploy.modules import FusedModule
from embedl_deploy.tensorrt import TENSORRT_CONVERSION_PATTERNS
from embedl_deploy.verify import Difference, compare_models, difference
from engines import compile_engines
from network import class_names, load_network
from photos import as_batch, load_photos
from picture import Ranking, save_picture
from processor import classify_here, show_machine
from quantization import compare_formats, make_study, show_formats
from torchvision_import import import_torchvision

OUTPUT = Path(__file__).parent.parent / "demo-output"


def top3(logits: torch.Tensor, names: list[str]) -> list[Ranking]:
    """For each photograph, the three likeliest classes and their probabilities."""
    best = logits.softmax(dim=1).topk(3)
    return [
        [(names[index], value) for index, value in zip(row, values, strict=True)]
        for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def fused_counts(model: nn.Module) -> Counter[str]:
    """How many fused modules of each kind a model holds."""
    return Counter(type(module).__name__ for module in model.modules() if isinstance(module, FusedModule))


def show_counts(console: Console, model: nn.Module) -> None:
    """Print the fused modules."""
    table = Table(title="Fused modules", title_justify="left", box=None, pad_edge=False)
    table.add_column("module")
    table.add_column("count", justify="right")
    for name, count in fused_counts(model).most_common():
        table.add_row(name, str(count))
    console.print(table)


def show_stages(console: Console, stages: dict[str, Difference]) -> None:
    """Print how far each stage is from the model as it came."""
    table = Table(title="Largest difference from the original", title_justify="left", box=None, pad_edge=False)
    for column in ("stage", "max |Δ|", "relative to the largest output"):
        table.add_column(column)
    for stage, found in stages.items():
        table.add_row(stage, f"{found.max_abs:.2e}", f"{found.max_rel:.2e}")
    console.print(table)


def show_predictions(console: Console, photos: list[str], before: list[Ranking], after: list[Ranking]) -> bool:
    """Print both rankings of each photograph; return whether they agree everywhere."""
    table = Table(title="Top-3 classes", title_justify="left", box=None, pad_edge=False)
    for column in ("photograph", "PyTorch, original", "ONNX Runtime, transformed", "agree"):
        table.add_column(column)
    agree = True
    for photo, b, a in zip(photos, before, after, strict=True):
        same = [name for name, _ in b] == [name for name, _ in a]
        agree = agree and same
        cells = ("\n".join(f"{name} {value:.1%}" for name, value in ranking) for ranking in (b, a))
        table.add_row(photo, *cells, "yes" if same else "NO")
    console.print(table)
    return agree


def six_lines(console: Console) -> None:
    """The same for two torchvision models with random weights."""
    models = import_torchvision().models
    for name in ("resnet50", "vit_b_16"):
        model = models.get_model(name, weights=None).eval()
        x = torch.randn(1, 3, 224, 224)
        result = transform(model, x, backend="tensorrt")
        console.print(f"\n[bold]{name}[/]: {result.verify(x)}; {dict(fused_counts(result.model))}", highlight=False)


def run(output: Path, console: Console) -> bool:
    """Run the whole demo; return whether all predictions agree."""
    output.mkdir(parents=True, exist_ok=True)
    file, plan_file, picture = output / "efficientnet_lite0.onnx", output / "plan.json", output / "predictions.png"
    stages: dict[str, Difference] = {}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:

        def step(text: str) -> None:
            for task in progress.tasks:
                progress.update(task.id, completed=1)
            progress.add_task(text, total=1)
            if not console.is_terminal:
                console.print(f"… {text}")

        step("loading EfficientNet-Lite0 and the photographs")
        network, names, photos = load_network(), class_names(), load_photos()
        batch = as_batch(photos)
        with torch.no_grad():
            reference = network(batch)
        step("capturing")
        stages["captured"] = transform(network, batch, patterns=[]).verify(batch)
        step("converting")
        converted = transform(network, batch, patterns=TENSORRT_CONVERSION_PATTERNS)
        stages["converted"] = converted.verify(batch)
        step("planning for TensorRT")
        plan = get_transformation_plan(network, batch, backend="tensorrt")
        plan_file.write_text(plan.to_json())
        plan_text = str(plan)
        step("applying the plan")
        result: TransformationResult = apply_transformation_plan(plan)
        step("verifying")
        stages["fused"] = compare_models(network, result.model, (batch,))
        step("exporting to ONNX, checking, running in ONNX Runtime")
        exported = export_onnx(result, batch, file, dynamic_batch=True)
        (onnx_logits,) = run_onnx(file, batch)
        stages["ONNX Runtime"] = difference(reference, onnx_logits)
        step("drawing")
        before, after = top3(reference, names), top3(onnx_logits, names)
        save_picture(picture, photos, before, after)
        step("drawing crops of the photographs")
        study = make_study(network)
        formats, quantized = compare_formats(network, result, study, output, step)
        engines = compile_engines({"FP16": result.model, **quantized}, batch[:1], output, step)
        here = classify_here(network, batch, study, output, step)
        for task in progress.tasks:
            progress.update(task.id, completed=1)

    console.print()
    console.print(plan_text, highlight=False, markup=False)
    console.print()
    console.print(str(result.report), highlight=False, markup=False)
    console.print()
    show_counts(console, result.model)
    console.print()
    show_stages(console, stages)
    console.print()
    agree = show_predictions(console, list(photos), before, after)
    console.print()
    show_formats(console, formats)
    six_lines(console)
    console.print(f"\n{engines}\n", highlight=False, markup=False, soft_wrap=True)
    show_machine(console, here, list(photos), names)
    console.print(f"\nONNX file   {file}  ({exported.size / 1e6:.1f} MB, opset {exported.opset}, batch size open)")
    console.print(f'plan        {plan_file}  (edit an "apply", load it with load_transformation_plan)')
    console.print(f"picture     {picture}")
    console.print(
        "\nNext: change one decision, plan.disable(node, pattern), and run again; ask report.why_not(name) about any\n"
        f"node; check and compile a file of yours: check({file.name!r}), compile({file.name!r}, shapes=...).",
        highlight=False,
    )
    return agree


def main() -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the files (default: %(default)s)")
    console = Console(width=None if sys.stdout.isatty() else 120)
    agree = run(parser.parse_args().output, console)
    if not agree:
        console.print("[bold red]The predictions before and after differ.[/]")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
