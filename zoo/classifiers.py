"""All torchvision classifiers: does the transformed model compute what the original does?

    python -m zoo [model ...] [--double]

Random weights at a fixed seed, evaluation mode, one image. Parameters that are initialized to a constant (the zero
heads of transformers, layer scales of 1e-6, biases, batch norms) are perturbed first: a model whose output is all zeros
agrees with anything.
"""

import gc
import sys
import time
from collections import Counter
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from embedl_deploy import transform
from embedl_deploy.modules import FusedModule
from embedl_deploy.verify import Difference
from torchvision_import import import_torchvision
from zoo.member import perturb_constants

#: Side of the square image, where it is not 224.
IMAGE_SIDES = {"inception_v3": 299}
#: max|Δ| accepted, relative to the largest output, in single and in double precision.
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}
#: Ten models of different kinds, for double precision.
DOUBLE_MODELS = (
    "resnet50",
    "vit_b_16",
    "convnext_tiny",
    "swin_t",
    "swin_v2_t",
    "efficientnet_b0",
    "mobilenet_v3_large",
    "densenet121",
    "regnet_y_400mf",
    "maxvit_t",
)


@dataclass(frozen=True)
class ZooResult:
    """What became of one model."""

    name: str
    difference: Difference
    largest_output: float
    fused: Counter[str]
    applied: int
    failed: int
    seconds: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether the outputs agree, are not all zero, and no rewrite failed."""
        return self.difference.max_rel <= self.tolerance and self.largest_output > 0 and self.failed == 0


def make_model(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, torch.Tensor]:
    """A model with random weights and an image for it."""
    models = import_torchvision().models
    torch.manual_seed(0)
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, weights=None, **options).eval()
    perturb_constants(model)
    side = IMAGE_SIDES.get(name, 224)
    return model.to(dtype), torch.randn(1, 3, side, side, dtype=dtype)


def check_model(name: str, dtype: torch.dtype = torch.float32) -> ZooResult:
    """Transform one model for TensorRT and compare."""
    model, image = make_model(name, dtype)
    start = time.perf_counter()
    result = transform(model, image, backend="tensorrt")
    seconds = time.perf_counter() - start
    with torch.no_grad():
        largest = float(model(image).abs().max())
    fused = Counter(type(m).__name__ for m in result.model.modules() if isinstance(m, FusedModule))
    report = result.report
    return ZooResult(
        name=name,
        difference=result.verify(image),
        largest_output=largest,
        fused=fused,
        applied=report["applied_count"],
        failed=report["failed_count"],
        seconds=seconds,
        tolerance=TOLERANCES[dtype],
    )


def _print(console: Console, results: list[ZooResult]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("model", "max|Δ|/max|y|", "max|y|", "rewrites", "transform s", "fused modules"):
        table.add_column(column)
    for r in results:
        fused = ", ".join(f"{name.removeprefix('Fused')} {count}" for name, count in r.fused.most_common())
        mark = "" if r.agrees else "  <-- DISAGREES"
        cells = (f"{r.difference.max_rel:.1e}{mark}", f"{r.largest_output:.2g}", str(r.applied), f"{r.seconds:.2f}")
        table.add_row(r.name, *cells, fused)
    console.print(table)


def compare(names: list[str], *, double: bool = False) -> int:
    """Check the models of these names, or all, and ten of them in float64; returns the exit status."""
    models = import_torchvision().models
    runs = [(name, torch.float64 if double else torch.float32) for name in names or models.list_models(module=models)]
    if not names and not double:
        runs += [(name, torch.float64) for name in DOUBLE_MODELS]
    console = Console(width=None if sys.stdout.isatty() else 160)
    results: dict[torch.dtype, list[ZooResult]] = {}
    for name, dtype in runs:
        console.print(f"{name} in {dtype}", style="dim")
        results.setdefault(dtype, []).append(check_model(name, dtype))
        gc.collect()
    for dtype, found in results.items():
        good = sum(result.agrees for result in found)
        console.print(f"\n{dtype}, tolerance {TOLERANCES[dtype]:g} of the largest output: {good} of {len(found)} agree")
        _print(console, found)
    return 0 if all(result.agrees for found in results.values() for result in found) else 1
