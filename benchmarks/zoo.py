"""All torchvision classifiers: does the transformed model compute what the original does?

    python benchmarks/zoo.py [model ...] [--double]

Random weights at a fixed seed, evaluation mode, one image. Parameters that are initialized to a constant (the zero
heads of transformers, layer scales of 1e-6, biases, batch norms) are perturbed first: a model whose output is all zeros
agrees with anything.
"""

import argparse
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


def perturb_constants(model: nn.Module, seed: int = 0) -> None:
    """Give every parameter and statistic that holds one value throughout some variation, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point() or tensor.numel() < 2 or not bool((tensor == tensor.flatten()[0]).all()):
                continue
            noise = torch.rand(tensor.shape, generator=generator).to(tensor) - 0.5
            if name.endswith("running_var") or float(tensor.flatten()[0]) == 1:
                tensor.add_(noise)  # 0.5 … 1.5: a variance, or the gain of a normalization
            else:
                tensor.add_(0.2 * noise)


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


def main() -> int:
    """Check the models named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names; default: all classifiers, and ten of them in float64")
    parser.add_argument("--double", action="store_true", help="double precision")
    options = parser.parse_args()
    models = import_torchvision().models
    names = options.models or models.list_models(module=models)
    runs = [(name, torch.float64 if options.double else torch.float32) for name in names]
    if not options.models and not options.double:
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


if __name__ == "__main__":
    sys.exit(main())
