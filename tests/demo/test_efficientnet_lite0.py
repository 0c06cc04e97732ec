"""EfficientNet-Lite0 with its ImageNet weights on real photographs: counts, classes, and the file."""

from collections import Counter

import pytest
import torch
from rich.console import Console
from torch import nn

import main as demo
import processor
import quantization
from crops import random_crops
from embedl_deploy import Trace, transform
from embedl_deploy.modules import FusedModule, PaddedConv2d
from embedl_deploy.tensorrt.compilers import TensorRTForRTX
from network import class_names, load_network
from photos import as_batch, load_photos
from quantization import CropStudy, run_batches
from support.nets import scrambled

#: The seven stages: expansion, repeats, stride of the first block (Tan and Le 2019, table 1; Lite: no squeeze-excite).
STAGES = [(1, 1, 1), (6, 2, 2), (6, 2, 2), (6, 3, 2), (6, 3, 1), (6, 4, 2), (6, 1, 1)]
BLOCKS = sum(repeats for _, repeats, _ in STAGES)  # 16
#: Expansion (in all blocks but the first) and depthwise convolution end in ReLU6; stem and head too.
WITH_ACTIVATION = 1 + (BLOCKS - 1) + BLOCKS + 1  # 33
#: One projection a block, without activation, and the converted classifier.
WITHOUT_ACTIVATION = BLOCKS + 1  # 17
#: Convolutions of stride two pad unevenly at even sizes: the stem and the first blocks of four stages.
UNEVEN = 1 + sum(stride == 2 for _, _, stride in STAGES)  # 5


@pytest.fixture(scope="module")
def network():
    return load_network()


@pytest.fixture(scope="module")
def batch():
    return as_batch(load_photos())


@pytest.mark.parametrize("given", ["shapes", "no shapes"])
def test_counts(network, batch, given):
    result = transform(network, batch if given == "shapes" else None, backend="tensorrt")
    counts = Counter(type(m).__name__ for m in result.model.modules() if isinstance(m, FusedModule))
    assert counts == {
        "FusedConvBNReLU": WITH_ACTIVATION,
        "FusedConvBN": WITHOUT_ACTIVATION,
        "FusedAdaptiveAvgPool2d": 1,
    }
    convolutions = [m for m in result.model.modules() if isinstance(m, nn.Conv2d)]
    assert sum(isinstance(m, PaddedConv2d) for m in convolutions) == UNEVEN
    assert not any(isinstance(m, nn.ZeroPad2d) for m in result.model.modules())
    assert all(type(m) in (nn.Conv2d, PaddedConv2d) for m in convolutions), "a subclass with its own forward is left"
    assert result.verify(batch).max_rel <= 1e-5


def test_weights_are_the_users_at_the_users_paths(network):
    model = transform(network, backend="tensorrt").model
    ours = model.state_dict()
    theirs = network.state_dict()
    assert torch.equal(ours["_blocks.0._depthwise_conv.conv.weight"], theirs["_blocks.0._depthwise_conv.weight"])
    assert torch.equal(ours["_fc.conv.weight"].flatten(1), theirs["_fc.weight"])
    assert sum(t.numel() for t in ours.values()) == sum(t.numel() for t in theirs.values())


def test_same_through_torch_export(network, batch):
    result = transform(network, batch, backend="tensorrt", trace=Trace.EXPORT)
    assert result.report["capture"] == "export"
    counts = Counter(type(m).__name__ for m in result.model.modules() if isinstance(m, FusedModule))
    assert counts["FusedConvBNReLU"] == WITH_ACTIVATION
    assert result.verify(batch).max_rel <= 1e-5


def test_sees_what_is_in_the_photographs(network, batch):
    names = class_names()
    with torch.no_grad():
        best = [names[index] for index in network(batch).argmax(dim=1).tolist()]
    assert dict(zip(load_photos(), best, strict=True)) == {
        "chelsea": "Egyptian cat",
        "coffee": "espresso",
        "rocket": "missile",
        "china": "palace",
        "flower": "daisy",
    }


def small_network():
    """Of the demo's layers, with one block and random weights: tests/slow/test_demo.py takes the real one."""
    expand, depthwise, project = (
        nn.Conv2d(3, 12, 4, 4),
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        nn.Conv2d(12, 24, 1),
    )
    first, second = ((nn.BatchNorm2d(12), nn.ReLU6()) for _ in range(2))
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 1000))
    return scrambled(nn.Sequential(expand, *first, depthwise, *second, project, nn.BatchNorm2d(24), *pooled)).eval()


def test_every_step_of_the_demo(tmp_path, monkeypatch):
    for count in ("CALIBRATION_CROPS", "HELD_OUT_CROPS"):
        monkeypatch.setattr(quantization, count, 4)
    chosen = {name: (quantization.CONFIGURATIONS[name][0], {}) for name in ("INT8, policy all", "FP8 E4M3")}
    monkeypatch.setattr(quantization, "CONFIGURATIONS", chosen)
    monkeypatch.setattr(processor, "SECONDS", 0.05)
    monkeypatch.setattr(demo, "load_network", small_network)
    monkeypatch.setattr(demo, "six_lines", lambda console: None)  # README.md and test_counts.py have these networks
    with open(tmp_path / "out.txt", "w") as file:
        assert demo.run(tmp_path, Console(width=120, file=file))
    text = (tmp_path / "out.txt").read_text()
    built = "No engine was built." if TensorRTForRTX().missing() else "convolution in int8"
    for expected in ("FusedConvBNReLU             2", "ONNX Runtime", built, "plan.json", "FP8 E4M3", "INT8 takes"):
        assert expected in text
    assert "NO" not in text.split()
    names = ("efficientnet_lite0.onnx", "int8_all.onnx", "fp8_e4m3.onnx", "plan.json", "predictions.png")
    for name in (*names, "processor_float32.ort.engine", "processor_int8.ort.engine"):
        assert (tmp_path / name).stat().st_size > 1000


def test_engines_of_this_machine_say_what_the_network_says(tmp_path, monkeypatch):
    monkeypatch.setattr(processor, "SECONDS", 0.05)
    network, crops = small_network(), random_crops(8, seed=1)
    study = CropStudy(crops[:4], crops[4:], run_batches(network, crops[4:]))
    steps = []
    found = processor.classify_here(network, crops[:2], study, tmp_path, steps.append)
    assert [timing.runs >= 3 for timing in found.timings] == [True, True]
    with torch.no_grad():
        assert torch.allclose(found.logits[0], network(crops[:2]), atol=1e-4)
    assert found.accuracies[0].sqnr > 80
    assert 15 < found.accuracies[1].sqnr < 60, "INT8 rounds, and only that"
    # three convolutions and the classifier
    assert [processor._in_integers(result) for result in found.results] == ["0 of 4", "4 of 4"]
    with open(tmp_path / "out.txt", "w") as file:
        processor.show_machine(Console(width=120, file=file), found, ["one", "two"], class_names())
    text = (tmp_path / "out.txt").read_text()
    best = [class_names()[index] for index in network(crops[:2]).argmax(dim=1).tolist()]
    rows = [line for line in text.splitlines() if line.startswith(("one", "two"))]
    assert len(rows) == 2
    for row, name in zip(rows, best, strict=True):
        assert name in row
    ratio = found.timings[1].median / found.timings[0].median
    assert f"INT8 takes {ratio:.2f} × the time of float32" in text
