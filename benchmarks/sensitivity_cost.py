"""What sensitivity costs against one calibration, and whether its order is that of quantizing layer by layer.

    python benchmarks/sensitivity_cost.py [--size N] [--rounds N]

resnet50 with random weights, and batch norms that have seen the data, over 64 images of N×N in batches of 8. The
reference order is found by brute force: the whole network once for each layer, with nothing but that layer quantized.
The exit code is 1 if the cost is over 8 calibrations, or Spearman's rank correlation of the two orders below 0.9.
"""

import argparse
import sys
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from embedl_deploy import transform
from embedl_deploy.quantize import calibrate, insert_qdq, quantization_report
from embedl_deploy.sensitivity import sensitivity
from embedl_deploy.sensitivity.layers import layers_of
from embedl_deploy.sensitivity.partly import PartlyQuantized
from embedl_deploy.verify import signal_to_noise
from measurement import Measurement, describe_machine, make_console, paired, print_measurements, processor_seconds
from torchvision_import import import_torchvision


def images(size: int) -> list[torch.Tensor]:
    """Batches of 8 images: coarse shapes, a colour and noise."""
    generator = torch.Generator().manual_seed(0)

    def batch() -> torch.Tensor:
        shapes, colour, noise = (torch.randn(8, 3, n, n, generator=generator) for n in (7, 1, size))
        return 0.5 * F.interpolate(shapes, size=(size, size)) + colour + 0.5 * noise

    return [batch() for _ in range(8)]


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's ρ: the correlation of the ranks."""
    ranks = [torch.tensor(values).argsort().argsort().double() for values in (first, second)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    batches = images(arguments.size)
    model = import_torchvision().models.resnet50().train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    result = transform(model.eval(), batches[0], backend="tensorrt")
    quantized = insert_qdq(result.model, result.matches)
    calibrate(quantized, batches, progress=False)
    cost = paired(
        "sensitivity, resnet50, 64 images",
        "one calibration",
        8.0,
        lambda: processor_seconds(lambda: sensitivity(quantized, batches, progress=False)),
        lambda: processor_seconds(lambda: calibrate(insert_qdq(result.model, result.matches), batches, progress=False)),
        arguments.rounds,
    )
    found = [layer.alone for layer in sensitivity(quantized, batches, progress=False).layers]
    with torch.no_grad():
        exact = [PartlyQuantized(quantized, {})(batch) for batch in batches]
        brute = [
            signal_to_noise(exact, [PartlyQuantized(quantized, [layer])(batch) for batch in batches])
            for layer in layers_of(quantized, quantization_report(quantized))
        ]
    agreement = rank_correlation(found, brute)
    order = Measurement(
        "1 − rank correlation with brute force", f"{len(brute)} layers", f"{1 - agreement:.3f}", "", 1 - agreement, 0.1
    )
    console = make_console()
    console.print(describe_machine(torch.get_num_threads(), f"torch {torch.__version__}"), highlight=False)
    return 0 if print_measurements(console, [cost, order]) else 1


if __name__ == "__main__":
    sys.exit(main())
