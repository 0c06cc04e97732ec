"""A few torchvision classifiers, beside those of tests/tensorrt/test_counts.py; ``./dev zoo`` runs all of them."""

import pytest
import torch

from zoo.classifiers import check_model, make_model

FEW = ["alexnet", "googlenet", "mnasnet0_5", "shufflenet_v2_x1_0"]


@pytest.mark.parametrize("name", FEW)
def test_agrees_with_the_original(name):
    result = check_model(name)
    assert result.failed == 0
    assert result.largest_output > 1e-3
    assert result.difference.max_rel <= 1e-5


def test_double_precision():
    result = check_model("swin_v2_t", torch.float64)
    assert result.largest_output > 1e-3
    assert result.difference.max_rel <= 1e-12


def test_no_parameter_is_left_constant():
    model, _ = make_model("vit_b_16")
    assert bool(model.heads.head.weight.any())
