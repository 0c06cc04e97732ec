"""Recurrent layers over an open number of steps, however often they are exported, and by whatever capture."""

import onnx
import pytest
import torch
from torch import nn
from torch.export import Dim

from embedl_deploy import export_onnx, transform
from embedl_deploy.export.runtime import run_onnx
from support.nets import random_input, scrambled

SHAPES = {"x": {0: Dim("batch", max=8), 1: Dim("time", min=2, max=32)}}


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.rnn, self.head = layer, nn.Linear(layer.hidden_size * (2 if layer.bidirectional else 1), 3)

    def forward(self, x):
        steps, states = self.rnn(x if self.rnn.batch_first else x.transpose(0, 1))
        states = states[0] if isinstance(states, tuple) else states
        return self.head(steps), states


@pytest.mark.parametrize(
    ("layer", "trace", "dtype"),
    [
        (lambda: nn.LSTM(4, 6, batch_first=True), "symbolic", torch.float16),
        (lambda: nn.GRU(4, 6, bidirectional=True), "export", torch.float32),
    ],
)
def test_every_export_is_open(layer, trace, dtype, tmp_path):
    model, x, path = scrambled(Net(layer())).eval(), random_input(2, 6, 4), tmp_path / "net.onnx"
    found = transform(model, x, backend="tensorrt", trace=trace, dynamic_shapes=SHAPES)
    for _ in range(2):  # an export leaves torch in another state
        exported = export_onnx(found, x, path, dtype=dtype)
    assert exported.shapes == {"x": ((1, 2, 4), (2, 6, 4), (8, 32, 4))}
    sizes = onnx.load(path).graph.output[0].type.tensor_type.shape.dim
    assert [bool(size.dim_param) for size in sizes] == [True, True, False]
    for batch, time in ((1, 2), (3, 11), (8, 32)):
        given = random_input(batch, time, 4)
        got = run_onnx(path, given.to(dtype))
        for value, wanted in zip(got, model(given), strict=True):
            torch.testing.assert_close(value.float(), wanted, atol=1e-5 if dtype is torch.float32 else 2e-2, rtol=0)
