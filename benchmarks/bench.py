"""What the transformation costs, as ratios measured side by side in one run; prints a table.

The exit code is 1 if a ratio is over its limit.
"""

import argparse
import copy
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper, save
from torch import fx, nn

from embedl_deploy import check, transform
from embedl_deploy.capture.capture import capture
from embedl_deploy.verify import state_kept
from measurement import Measurement, describe_machine, make_console, paired, print_measurements, seconds
from torchvision_import import import_torchvision


def time_of_transform(rounds: int) -> Measurement:
    """transform(resnet50) against what it cannot do without: a copy and a trace."""
    model = import_torchvision().models.resnet50(weights=None).eval()

    def needed() -> object:
        return fx.symbolic_trace(copy.deepcopy(model))

    return paired(
        "transform(resnet50)",
        "deepcopy + symbolic_trace",
        1.5,
        lambda: seconds(lambda: transform(model, backend="tensorrt")),
        lambda: seconds(needed),
        rounds,
    )


def time_of_comparison(rounds: int) -> Measurement:
    """What comparing the captured graph with the model costs, against the two forward passes that it consists of."""
    model, x = import_torchvision().models.resnet50(weights=None).eval(), torch.randn(1, 3, 224, 224)

    @torch.no_grad()
    def forward_passes() -> None:
        model(x)
        model(x)

    def cost() -> float:
        with_it = seconds(lambda: transform(model, x, backend="tensorrt"))
        return with_it - seconds(lambda: transform(model, x, backend="tensorrt", verify_capture=False))

    return paired("verify_capture, resnet50", "two forward passes", 2, cost, lambda: seconds(forward_passes), rounds)


def time_of_noting_state(rounds: int) -> Measurement:
    """What noting the state of a model and putting it back costs, against a capture, which does it."""
    model = import_torchvision().models.resnet50(weights=None).eval()

    def noted() -> None:
        with state_kept(model):
            pass

    return paired(
        "state of resnet50, noted and put back",
        "capture(resnet50)",
        0.25,
        lambda: seconds(noted),
        lambda: seconds(lambda: capture(model)),
        rounds,
    )


class Chain(nn.Module):
    """Residual blocks in a row, about ``nodes`` nodes in all; each has two convolutions with batch norm."""

    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleList(self._layer() for _ in range(2)) for _ in range(nodes // 7))

    @staticmethod
    def _layer() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 4, H, W) to the same."""
        for first, second in self.blocks:  # type: ignore[misc]  # a ModuleList of two
            x = torch.relu(second(torch.relu(first(x))) + x)
        return x


def growth_with_graph_size(rounds: int) -> Measurement:
    """Time for ten times as many nodes."""
    small, large = Chain(1_000).eval(), Chain(10_000).eval()
    return paired(
        "transform, 10,000 nodes",
        "transform, 1,000 nodes",
        12,
        lambda: seconds(lambda: transform(large, backend="tensorrt")),
        lambda: seconds(lambda: transform(small, backend="tensorrt")),
        rounds,
    )


def _chain_file(nodes: int, folder: Path) -> Path:
    """An ONNX file: convolutions in a row, each with Q/DQ in front of its input and behind its weight."""
    constants = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "weight": np.ones((4, 4, 1, 1), np.int8),
        "scales": np.full(4, 0.1, np.float32),
        "zeros": np.zeros(4, np.int8),
    }
    row = [helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], ["w"], axis=0)]
    last = "x"
    for place in range(nodes // 3):
        q, d, y = (f"{letter}{place}" for letter in "qdy")
        row += [
            helper.make_node("QuantizeLinear", [last, "scale", "zero"], [q]),
            helper.make_node("DequantizeLinear", [q, "scale", "zero"], [d]),
            helper.make_node("Conv", [d, "w"], [y]),
        ]
        last = y
    first, behind = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("x", last))
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(row, "chain", [first], [behind], initializers)
    path = folder / f"{nodes}.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def growth_with_file_size(rounds: int) -> Measurement:
    """Time for ten times as many nodes of an ONNX file."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = (_chain_file(nodes, Path(folder)) for nodes in (2_000, 20_000))
        check(_chain_file(20, Path(folder)), backend="tensorrt")  # imports what reading a file needs
        return paired(
            "check, 20,000 nodes",
            "check, 2,000 nodes",
            12,
            lambda: seconds(lambda: check(large, backend="tensorrt")),
            lambda: seconds(lambda: check(small, backend="tensorrt")),
            rounds,
        )


def time_of_import(rounds: int) -> Measurement:
    """A fresh interpreter importing the package, against one importing torch."""

    def run(statement: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", statement], check=True))

    return paired(
        "from embedl_deploy import transform",
        "import torch",
        1.15,
        lambda: run("from embedl_deploy import transform"),
        lambda: run("import torch"),
        rounds,
    )


_PEAK = """
import copy, resource, sys, psutil
from torchvision_import import import_torchvision
from embedl_deploy import transform
models = import_torchvision().models
transform(models.get_model({name!r}.replace("vit_b_16", "squeezenet1_1"), weights=None).eval(), backend="tensorrt")
model = models.get_model({name!r}, weights=None).eval()
before = psutil.Process().memory_info().rss
result = {expression}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


def peak_memory(name: str) -> Measurement:
    """Memory that transform takes at its peak, against the copy of the model that it must make."""

    def peak(expression: str) -> float:
        code = _PEAK.format(name=name, expression=expression)
        output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
        return float(output) / 1e6

    measured, reference = peak('transform(model, backend="tensorrt")'), peak("copy.deepcopy(model)")
    return Measurement(
        f"peak memory of transform({name})",
        "peak memory of deepcopy",
        f"{measured:.0f} MB",
        f"{reference:.0f} MB",
        measured / reference,
        1.2,
    )


_PEAK_OF_EXPORT = """
import gc, os, resource, sys, tempfile, psutil, torch
from torchvision_import import import_torchvision
from embedl_deploy import export_onnx, transform
from embedl_deploy.quantize import quantize
models, x = import_torchvision().models, torch.randn(1, 3, 224, 224)
def exported(name, folder):
    model = models.get_model(name, weights=None).eval()
    quantized = quantize(transform(model, x, backend="tensorrt"), [x], progress=False)
    gc.collect()
    before = psutil.Process().memory_info().rss
    export_onnx(quantized, x, os.path.join(folder, "model.onnx"), dtype={dtype})
    return before, sum(tensor.nbytes for tensor in model.parameters())
with tempfile.TemporaryDirectory() as folder:
    exported("squeezenet1_1", folder)
    before, weights = exported({name!r}, folder)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, weights)
"""


def peak_memory_of_export(name: str, dtype: torch.dtype) -> Measurement:
    """Memory that export_onnx takes at its peak for a quantized model, beside the model, against its weights."""
    code = _PEAK_OF_EXPORT.format(name=name, dtype=dtype)
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    measured, weights = (float(number) / 1e6 for number in output.split())
    kind = str(dtype).removeprefix("torch.")
    return Measurement(
        f"peak memory of export_onnx({name}), INT8 in {kind}",
        "weights of the model",
        f"{measured:.0f} MB",
        f"{weights:.0f} MB",
        measured / weights,
        3,
    )


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds for each timing (default: %(default)s)")
    rounds = parser.parse_args().rounds
    rows = [
        time_of_transform(3 * rounds),
        time_of_comparison(rounds),
        time_of_noting_state(3 * rounds),
        growth_with_graph_size(max(3, rounds // 2)),
        growth_with_file_size(max(3, rounds // 2)),
        time_of_import(rounds),
        peak_memory("vit_b_16"),
        peak_memory("vit_l_16"),
        peak_memory_of_export("vit_b_16", torch.float32),
        peak_memory_of_export("vit_b_16", torch.float16),
    ]
    console = make_console()
    console.print(describe_machine(torch.get_num_threads(), f"torch {torch.__version__}"), highlight=False)
    return 0 if print_measurements(console, rows) else 1


if __name__ == "__main__":
    sys.exit(main())
