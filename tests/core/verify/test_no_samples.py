"""Of no samples nothing can be said."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import InputError
from embedl_deploy.quantize import quantize
from embedl_deploy.stages import verify_stages
from support.nets import random_input

EMPTY, X = torch.zeros(0, 8), random_input(4, 8)


@pytest.fixture(scope="module")
def result():
    return transform(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), X, backend="tensorrt")


def test_no_agreement_is_told(result, tmp_path):
    for ask in (
        lambda: result.verify(EMPTY),
        lambda: verify_stages(result.model, EMPTY, {"same": result}),
        lambda: export_onnx(result, EMPTY, tmp_path / "m.onnx"),
    ):
        with pytest.raises(InputError, match=r"hold no sample\. Pass at least one"):
            ask()
    export_onnx(result, EMPTY, tmp_path / "m.onnx", tolerance=None)


def test_calibration_data_is_named(result):
    with pytest.raises(InputError, match=r"Batch 2 of the calibration data cannot be used: .* hold no sample"):
        quantize(result, [X, EMPTY], progress=False)


def test_an_input_among_others_may_be_empty():
    class Joined(nn.Module):
        def forward(self, x, more):
            return torch.cat([x, more])

    assert transform(Joined(), (X, EMPTY), backend="tensorrt").verify(X, EMPTY).max_abs == 0
