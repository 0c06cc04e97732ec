"""Recurrent layers stay what they are, and say why they are in float."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import quantization_report, quantize
from embedl_deploy.tensorrt.modules import FusedRecurrent
from support.nets import net, random_input

X = random_input(2, 5, 4)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_it_is_one_module_in_float_with_the_reason(kind, trace, tmp_path):
    layer = kind(4, 3, 2, bidirectional=True, batch_first=True)
    model = net(lambda m, x: m.out(m.rnn(x)[0]), rnn=layer, out=nn.Linear(6, 4))
    result = transform(model, X, backend="tensorrt", trace=trace)
    assert isinstance(result.model.get_submodule("rnn"), FusedRecurrent)
    torch.testing.assert_close(result.model(X), model(X), rtol=0, atol=0)
    quantized = quantize(result, [X], progress=False)
    ((_, operator, reason),) = quantization_report(quantized).uncovered
    assert operator == "FusedRecurrent"
    assert reason.startswith(f"{kind.__name__}: TensorRT for RTX computes the recurrent product in float")
    if trace == "symbolic":
        (got,) = run_onnx(export_onnx(result, X, tmp_path / "m.onnx").path, X)
        torch.testing.assert_close(got, model(X).detach(), rtol=1e-4, atol=1e-5)


def test_a_state_that_is_given_goes_in():
    model = net(lambda m, x: m.rnn(x, (x[None, :, 0, :3] * 2, x[None, :, 1, :3])), rnn=nn.LSTM(4, 3, batch_first=True))
    result = transform(model, X, backend="tensorrt")
    assert isinstance(result.model.get_submodule("rnn"), FusedRecurrent)
    torch.testing.assert_close(result.model(X), model(X), rtol=0, atol=0)
