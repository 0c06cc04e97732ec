"""What calibration costs on top of running the model, as ratios measured side by side in one run; prints a table.

    python benchmarks/quantization_cost.py [--rounds N] [--images N] [--batch N]

A transformed resnet50 with random weights is calibrated on random images, by every method; inserting the quantizers is
not part of it. The reference is the same model without quantizers, run over the same images without gradients. The exit
code is 1 if a ratio is over its limit.
"""

import argparse
import sys

import torch
from torch import fx

from embedl_deploy import TransformationResult, transform
from embedl_deploy.quantize import CalibrationMethod, QuantConfig, TensorQuantConfig, calibrate, insert_qdq
from measurement import Measurement, describe_machine, make_console, paired, print_measurements, seconds
from torchvision_import import import_torchvision

#: How much calibration may take, against the forward passes that it cannot do without.
LIMITS = {
    CalibrationMethod.MINMAX: 1.25,
    CalibrationMethod.PERCENTILE: 1.6,
    CalibrationMethod.ENTROPY: 1.6,
    CalibrationMethod.MSE: 1.6,
}

#: Images, (N, 3, 224, 224), batch by batch.
Batches = tuple[torch.Tensor, ...]


def make_model() -> TransformationResult:
    """resnet50, transformed for TensorRT."""
    torch.manual_seed(0)
    return transform(import_torchvision().models.resnet50(weights=None).eval(), backend="tensorrt")


def make_batches(images: int, batch: int) -> Batches:
    """Random images."""
    return torch.randn(images, 3, 224, 224, generator=torch.Generator().manual_seed(0)).split(batch)


@torch.no_grad()
def run(model: fx.GraphModule, batches: Batches) -> None:
    """Plain forward passes."""
    for batch in batches:
        model(batch)


def time_of_calibration(
    result: TransformationResult, batches: Batches, method: CalibrationMethod, rounds: int
) -> Measurement:
    """Calibrate by one method against the forward passes."""
    config = QuantConfig(activation=TensorQuantConfig(calibration_method=method))
    quantized = insert_qdq(result.model, result.matches, config)
    return paired(
        f"calibrate(resnet50), {method.value}",
        f"forward passes, {sum(len(batch) for batch in batches)} images",
        LIMITS[method],
        lambda: seconds(lambda: calibrate(quantized, batches, progress=False)),
        lambda: seconds(lambda: run(result.model, batches)),
        rounds,
    )


def main() -> int:
    """Measure every method and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds for each method (default: %(default)s)")
    parser.add_argument("--images", type=int, default=32, help="images to calibrate with (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="images in a batch (default: %(default)s)")
    options = parser.parse_args()
    result, batches = make_model(), make_batches(options.images, options.batch)
    rows = [time_of_calibration(result, batches, method, options.rounds) for method in LIMITS]
    console = make_console()
    console.print(describe_machine(torch.get_num_threads(), f"torch {torch.__version__}"), highlight=False)
    return 0 if print_measurements(console, rows) else 1


if __name__ == "__main__":
    sys.exit(main())
