"""Rows that are multiplied by the weights of their group, as mixtures of experts write it, in the file."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import quantization_report, quantize
from support.nets import net, random_input

CALLS = {
    "torch": lambda m, x, ends: torch._grouped_mm(x, m.weights, ends),
    "aten": lambda m, x, ends: torch.ops.aten._grouped_mm.default(x, m.weights, offs=ends),
    "functional": lambda m, x, ends: nn.functional.grouped_mm(x, m.weights, offs=ends),
}


@pytest.mark.parametrize("name", CALLS)
def test_each_row_by_the_weights_of_its_group(tmp_path, name):
    model = net(CALLS[name], weights=nn.Parameter(torch.ones(3, 16, 8)))
    x = random_input(7, 16)
    written = export_onnx(model, (x, torch.tensor([2, 5, 7], dtype=torch.int32)), tmp_path / "m.onnx")
    for ends in ([2, 5, 7], [0, 0, 7], [3, 3, 7], [7, 7, 7]):  # groups may be empty
        wanted = torch.cat([x[a:b] @ w.detach() for a, b, w in zip([0, *ends], ends, model.weights, strict=False)])
        (got,) = run_onnx(written.path, x, torch.tensor(ends, dtype=torch.int32))
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_products_without_groups_of_rows(tmp_path):
    model = net(lambda m, x: torch._grouped_mm(x, m.weights), weights=nn.Parameter(torch.ones(3, 16, 8)))
    x = random_input(3, 8, 16)
    (got,) = run_onnx(export_onnx(model, x, tmp_path / "m.onnx").path, x)
    torch.testing.assert_close(got, torch.bmm(x, model.weights).detach(), rtol=1e-5, atol=1e-5)


def test_why_it_is_in_float():
    model = net(
        lambda m, x, ends: torch._grouped_mm(m.up(x), m.weights, ends),
        up=nn.Linear(16, 16),
        weights=nn.Parameter(torch.ones(3, 16, 8)),
    )
    inputs = random_input(7, 16), torch.tensor([2, 5, 7], dtype=torch.int32)
    quantized = quantize(transform(model, inputs, backend="tensorrt"), [inputs], progress=False)
    ((_, operation, reason),) = quantization_report(quantized).uncovered
    assert operation == "_grouped_mm"
    assert reason == "each of its rows picks one of several weights while the model runs, which no integer product does"
