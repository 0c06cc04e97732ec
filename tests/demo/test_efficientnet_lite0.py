"""EfficientNet-Lite0 with its ImageNet weights on real photographs: counts, classes, and the file."""

from collections import Counter

import pytest
import torch
from rich.console import Console
from torch import nn

import main as demo
import quantization
from embedl_deploy import Trace, transform
from embedl_deploy.modules import FusedModule, PaddedConv2d
from embedl_deploy.tensorrt.compilers import TensorRTForRTX
from network import class_names, load_network
from photos import as_batch, load_photos

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


def test_whole_demo(tmp_path, monkeypatch):
    # test_quantization.py and tests/slow measure accuracy with all crops
    monkeypatch.setattr(quantization, "CALIBRATION_CROPS", 4)
    monkeypatch.setattr(quantization, "HELD_OUT_CROPS", 4)
    monkeypatch.setattr(
        quantization,
        "CONFIGURATIONS",
        {name: (config, {}) for name, (config, _) in quantization.CONFIGURATIONS.items()},
    )
    console = Console(width=120, record=True, quiet=False, file=open(tmp_path / "out.txt", "w"))  # noqa: SIM115
    assert demo.run(tmp_path, console)
    console.file.close()
    text = (tmp_path / "out.txt").read_text()
    for expected in (
        "FusedConvBNReLU            33",
        "Egyptian cat",
        "ONNX Runtime",
        "vit_b_16",
        "No engine was built." if TensorRTForRTX().missing() else "convolution in int8",
        "plan.json",
        "INT8, policy all",
    ):
        assert expected in text
    assert "NO" not in [word.strip() for word in text.split()]
    for name in ("efficientnet_lite0.onnx", "int8_all.onnx", "fp8_e4m3.onnx", "plan.json", "predictions.png"):
        assert (tmp_path / name).stat().st_size > 1000
    assert (tmp_path / "int8_all.onnx").stat().st_size < 0.3 * (tmp_path / "float.onnx").stat().st_size
