"""Whole networks: what is fused, what is named as unsupported, and that the numbers agree."""

import copy

import pytest
import torch
import torchvision
from torch import nn


def small_cnn():
    def block(inputs, outputs):
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)
        )

    return nn.Sequential(
        block(3, 8),
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        block(8, 16),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16 * 4 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


class Residual(nn.Module):
    """A block of a residual network."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


def small_resnet():
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        Residual(8, 8, 1),
        Residual(8, 16, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def test_small_cnn_runs_whole(fuse, kinds, assert_agrees):
    x = torch.randn(2, 3, 32, 32)
    result = fuse(small_cnn().eval(), x)
    assert kinds(result) == [
        *("SensaiConvBNReLU", "SensaiMaxPool", "SensaiConvBNReLU", "SensaiConvBNReLU", "SensaiMaxPool"),
        *("SensaiConvBN", "Flatten", "Dropout", "SensaiLinear", "SensaiLinear"),
    ]
    assert result.report.unsupported == {}
    assert_agrees(small_cnn(), x, expect=9)


def test_small_resnet_names_what_is_left(fuse, kinds, assert_agrees):
    x = torch.randn(2, 3, 32, 32)
    result = fuse(small_resnet().eval(), x)
    counts = {kind: kinds(result).count(kind) for kind in dict.fromkeys(kinds(result))}
    assert counts == {
        "Conv2d": 1,
        "SensaiConvBNReLU": 3,
        "SensaiMaxPool": 1,
        "SensaiConvBN": 4,
        "SensaiAdd": 2,
        "SensaiGlobalAveragePool": 1,
        "Flatten": 1,
        "SensaiLinear": 1,
    }
    assert list(result.report.unsupported.values()) == ["Conv2d: kernel is 7×7; the engine has 1×1 and 3×3"]
    assert_agrees(small_resnet(), x, expect=13)


@pytest.mark.parametrize("make", [small_cnn, small_resnet])
def test_a_second_run_changes_nothing_and_the_model_is_left_alone(make, fuse):
    model, x = make().eval(), torch.randn(2, 3, 32, 32)
    before = copy.deepcopy(model.state_dict())
    first = fuse(model, x)
    assert fuse(first.model, x).report["applied_count"] == 0
    assert list(before) == list(model.state_dict())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121"])
def test_every_operator_of_torchvision_networks_is_fused_explained_or_free(name, fuse):
    model, x = getattr(torchvision.models, name)(weights=None).eval(), torch.randn(1, 3, 64, 64)
    result = fuse(model, x)
    free = {kind for node, kind in result.report.unfused.items() if node not in result.report.unsupported}
    assert free <= {"Dropout", "Flatten"}
    assert result.report["failed_count"] == 0
    assert result.verify(x).max_rel <= 1e-5
