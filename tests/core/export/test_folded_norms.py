"""Batch norms that the exporter folds in bfloat16: the file is valid, and its weights are the folded ones."""

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from support.nets import random_input, scrambled

IMAGE = random_input(1, 3, 6, 6)
#: The layers, an input, and how the factor of each output channel lies along the weight.
LAYERS = {
    "Conv": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)),
        IMAGE,
        (-1, 1, 1, 1),
    ),
    "ConvTranspose": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)),
        IMAGE,
        (1, -1, 1, 1),
    ),
    "Gemm": (lambda: nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4)), random_input(2, 8), (-1, 1)),
}


@pytest.mark.parametrize("operator", LAYERS)
def test_folded_weights_are_in_the_type_of_the_file(operator, tmp_path):
    make, x, along = LAYERS[operator]
    model = scrambled(make()).eval()
    given = transform(model, x, backend="tensorrt") if operator == "Conv" else model
    path = export_onnx(given, x, tmp_path / "m.onnx", dtype=torch.bfloat16).path
    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    assert [node.op_type for node in graph.node] == [operator] * (len(model) // 2)
    for index, node in enumerate(graph.node):
        assert {tensors[name].data_type for name in node.input[1:]} == {onnx.TensorProto.BFLOAT16}
        layer, norm = model[2 * index], model[2 * index + 1]
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        found = torch.tensor(onnx.numpy_helper.to_array(tensors[node.input[1]]).astype("float32"))
        torch.testing.assert_close(found, (layer.weight * factor.reshape(along)).detach(), rtol=2**-6, atol=1e-4)
