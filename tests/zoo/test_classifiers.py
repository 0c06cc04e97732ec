"""A few torchvision classifiers of different kinds; ``./dev zoo`` runs all of them."""

import pytest
import torch

from zoo.classifiers import check_model, make_model

FEW = [
    "alexnet",
    "convnext_tiny",
    "efficientnet_b0",
    "googlenet",
    "mnasnet0_5",
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
    "vit_b_16",
]


@pytest.mark.parametrize("name", FEW)
def test_agrees_with_the_original(name):
    result = check_model(name)
    assert result.failed == 0
    assert result.largest_output > 1e-3
    assert result.difference.max_rel <= 1e-5


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t"])
def test_double_precision(name):
    result = check_model(name, torch.float64)
    assert result.largest_output > 1e-3
    assert result.difference.max_rel <= 1e-12


def test_no_parameter_is_left_constant():
    model, _ = make_model("vit_b_16")
    assert bool(model.heads.head.weight.any())
