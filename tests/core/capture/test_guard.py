"""What torch.export has fixed about the inputs is told when others arrive."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import InputError
from embedl_deploy.quantize import quantize
from support.nets import random_input, scrambled

X, MORE = random_input(2, 3, 8, 8), random_input(5, 3, 8, 8)


def network():
    return scrambled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())).eval()


@pytest.mark.parametrize(
    "use",
    [
        lambda result: result.model(MORE),
        lambda result: result.verify(MORE),
        lambda result: quantize(result, [MORE], progress=False),
        lambda result: quantize(result, [X], progress=False)(MORE),
    ],
    ids=["call", "verify", "calibration", "a quantized model"],
)
def test_another_size_is_refused_with_what_to_do(use):
    result = transform(network(), X, backend="tensorrt", trace="export", dynamic_shapes={})
    with pytest.raises(InputError, match=r"size\(\)\[0\] == 2 does not hold: .* torch\.export.*dynamic_shapes"):
        use(result)


def test_sizes_that_were_left_open_stay_open(tmp_path):
    program = torch.export.export(network(), (X,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    result = transform(program, X, backend="tensorrt")
    assert result.verify(MORE).max_rel < 1e-5
    quantized = quantize(result, [MORE, X], progress=False)
    assert export_onnx(quantized, X, tmp_path / "net.onnx", dynamic_batch=True).difference.max_rel < 1e-5
    with pytest.raises(InputError, match=r"size\(\)\[1\] == 3 does not hold"):
        result.verify(random_input(2, 4, 8, 8))


def test_modules_that_it_opened_have_their_paths_again():
    result = transform(network(), X, backend="tensorrt", trace="export")
    assert {path for path, module in result.model.named_modules() if type(module).__name__.startswith("Fused")} == {
        "0",
        "2",
    }
