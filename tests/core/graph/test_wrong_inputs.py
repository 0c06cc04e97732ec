"""What is told of inputs that do not fit, and of weights without values."""

import numpy as np
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import InputError
from embedl_deploy.graph.input_fit import misfit
from embedl_deploy.graph.wrong_inputs import require_no_arrays, what_to_pass, wrong_names
from embedl_deploy.quantize import quantize
from support.small_patterns import PATTERNS


@pytest.mark.parametrize(
    ("missing", "unknown", "cure"),
    [
        (["meta"], [], "missing: meta. Give meta as well."),
        (["meta"], ["metadata"], "missing: meta; unknown: metadata. Write meta for metadata."),
        (["image"], ["pixels"], "unknown: pixels. Use the model's own names, image in place of pixels."),
        ([], ["label"], "unknown: label. Leave out label."),
    ],
)
def test_names_that_do_not_fit_get_a_cure_of_their_own(missing, unknown, cure):
    assert wrong_names(["image", "meta"], "(…)", 0, missing, unknown, []).endswith(cure)


def test_a_batch_in_a_batch_is_told():
    graph = transform(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8), patterns=PATTERNS).model
    assert "set its batch_size to None" in misfit(graph, (torch.randn(1, 2, 3, 8, 8),), {})
    assert "batch_size" not in misfit(graph, (torch.randn(2, 4, 8, 8),), {})


def test_arrays_are_found_in_containers():
    require_no_arrays((torch.ones(2), {"a": [torch.ones(1)]}), {"y": 3})
    with pytest.raises(InputError, match=r"input 2 of 2 holds a NumPy array, float64\[2\]; .*torch\.from_numpy"):
        require_no_arrays((torch.ones(2), {"a": [np.ones(2)]}), {})


@pytest.mark.parametrize(
    ("x", "cure"),
    [
        (torch.ones(2, 4, dtype=torch.float16), "convert the inputs, x.to(torch.float32)"),
        (torch.ones(2, 4, device="meta"), "move the inputs there, x.to('cpu')"),
        (torch.ones(2, 4, dtype=torch.uint8), "convert integers that are not indices"),
        (torch.ones(2, 5), "Pass inputs with the shapes and types that the model expects, on its device."),
    ],
    ids=["float16", "device", "uint8", "shape"],
)
def test_the_cure_is_that_of_the_input(x, cure):
    assert cure in what_to_pass(nn.Linear(4, 4), (x,), {})


def test_weights_without_values_are_told(tmp_path):
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    x = torch.randn(2, 3, 8, 8)
    of = r"The weights of '0(\.conv)?' and of 1 more modules are on the meta device"
    for example in (x, x.to("meta")):
        result = transform(model, example, patterns=PATTERNS)
        with pytest.raises(InputError, match=rf"quantize needs the values of the weights\. {of}"):
            quantize(result, [x])
        with pytest.raises(InputError, match=rf"export_onnx needs the values of the weights\. {of}"):
            export_onnx(result, x, tmp_path / "m.onnx")
