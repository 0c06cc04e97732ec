"""What quantization costs EfficientNet-Lite0, measured on crops that it was not calibrated with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from crops import random_crops
from embedl_deploy import TransformationResult, export_onnx
from embedl_deploy.quantize import CalibrationMethod, Precision, QuantConfig, TensorQuantConfig, quantize
from embedl_deploy.verify import signal_to_noise

CALIBRATION_CROPS, HELD_OUT_CROPS = 64, 96
_BATCH = 16

_CLIPPED = TensorQuantConfig(calibration_method=CalibrationMethod.MSE)
_FP8 = QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8, per_channel=True))
#: Rows of the table: a configuration, and how accuracy is kept.
CONFIGURATIONS: dict[str, tuple[QuantConfig, dict[str, Any]]] = {
    "INT8, policy all": (QuantConfig(_CLIPPED, policy="all"), {"learned_rounding": True}),
    "INT8, policy mixed": (QuantConfig(_CLIPPED, policy="mixed"), {"learned_rounding": True}),
    "FP8 E4M3": (_FP8, {"bias_correction": True}),
}


@dataclass(frozen=True)
class Accuracy:
    """How a model's logits compare with those of the float model.

    Attributes:
        sqnr: Signal to quantization noise, 10·log₁₀(Σ y² / Σ (y' − y)²), in dB.
        agreement: Share of crops with the same likeliest class.
    """

    sqnr: float
    agreement: float


@dataclass(frozen=True)
class CropStudy:
    """Crops, and what the float model says of the held-out ones."""

    calibration: torch.Tensor
    held_out: torch.Tensor
    reference: torch.Tensor

    def accuracy(self, model: nn.Module) -> Accuracy:
        """Compare a model with the float model on the held-out crops."""
        return self.compare(run_batches(model, self.held_out))

    def compare(self, logits: torch.Tensor) -> Accuracy:
        """Compare logits of the held-out crops, (N, classes), with those of the float model."""
        same = logits.argmax(1) == self.reference.argmax(1)
        return Accuracy(signal_to_noise(self.reference, logits), float(same.float().mean()))

    def quantized(self, result: TransformationResult, config: QuantConfig, **methods: Any) -> Any:
        """Quantize with the calibration crops."""
        return quantize(result, self.calibration.split(_BATCH), config, progress=False, **methods)


@torch.no_grad()
def run_batches(model: nn.Module, crops: torch.Tensor) -> torch.Tensor:
    """Logits, (N, classes)."""
    return torch.cat([model(batch) for batch in crops.split(_BATCH)])


def make_study(network: nn.Module) -> CropStudy:
    """Draw the crops and run the float model."""
    held_out = random_crops(HELD_OUT_CROPS, seed=2)
    return CropStudy(random_crops(CALIBRATION_CROPS, seed=1), held_out, run_batches(network, held_out))


def compare_formats(
    network: nn.Module, result: TransformationResult, study: CropStudy, output: Path, step: Callable[[str], None]
) -> tuple[Table, dict[str, nn.Module]]:
    """Quantize in every format, export, and tabulate accuracy and file sizes.

    Args:
        network: The original.
        result: What transform made of it.
        study: Crops to calibrate with, and others to judge by.
        output: Folder for the files.
        step: Is told what begins.

    Returns:
        The table, and the quantized models by their names in it.
    """
    models: dict[str, nn.Module] = {}
    table = Table(title="Quantized", title_justify="left", box=None, pad_edge=False)
    for column in ("", "SQNR of the logits", "same top-1 as float", "ONNX file", "MB"):
        table.add_column(column, justify="left" if column in ("", "ONNX file") else "right")

    def add(name: str, model: nn.Module, accuracy: Accuracy | None, file: str, **options: Any) -> None:
        exported = export_onnx(model, study.held_out[:2], output / file, dynamic_batch=True, **options)
        numbers = ("∞", "100.0 %") if accuracy is None else (f"{accuracy.sqnr:.1f} dB", f"{accuracy.agreement:.1%}")
        table.add_row(name, *numbers, file, f"{exported.size / 1e6:.1f}")

    step("exporting the original for comparison")
    add("float", network, None, "float.onnx")
    add("fused", result.model, study.accuracy(result.model), "efficientnet_lite0.onnx")
    for name, (config, methods) in CONFIGURATIONS.items():
        step(f"quantizing: {name}")
        models[name] = quantized = study.quantized(result, config, **methods)
        accuracy = study.accuracy(quantized)
        file = f"{name.lower().replace(', policy', '').replace(' ', '_')}.onnx"
        add(name, quantized, accuracy, file, integer_weights=True)
    return table, models


def show_formats(console: Console, table: Table) -> None:
    """Print the table, and what it was measured on."""
    console.print(table)
    console.print(
        f"{CALIBRATION_CROPS} crops of photographs to calibrate with, {HELD_OUT_CROPS} others to compare. INT8 rows: "
        "ranges of least squared\nerror, learned rounding. Weights per channel, stored as integers.",
        highlight=False,
    )
