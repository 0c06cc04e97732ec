"""Weights that two operators share are in a file once."""

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx
from support.nets import random_input


class Tied(nn.Module):
    """An embedding, and a last product with its weight."""

    def __init__(self, tie):
        super().__init__()
        self.embedding, self.head = nn.Embedding(200, 16), nn.Linear(16, 200, bias=False)
        if tie:
            self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(self.embedding(ids))


@pytest.mark.parametrize(("tie", "weights"), [(True, 1), (False, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_tied_weight_is_stored_once(tie, weights, dtype, tmp_path):
    written = export_onnx(Tied(tie).eval(), torch.arange(6).reshape(2, 3), tmp_path / "m.onnx", dtype=dtype)
    found = [sorted(weight.dims) for weight in onnx.load(written.path).graph.initializer if 200 in weight.dims]
    assert found == [[16, 200]] * weights


def test_small_ones_are_not_worth_an_operator(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)).eval()
    with torch.no_grad():
        model[1].weight.copy_(model[0].weight.T)
    graph = onnx.load(export_onnx(model, random_input(2, 4), tmp_path / "m.onnx").path).graph
    assert {node.op_type for node in graph.node} <= {"MatMul", "Gemm"}
