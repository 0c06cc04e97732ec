"""What graphs inside the graph compute stays in float, and the report says so."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.quantize import insert_qdq, quantization_report
from support.nets import net, random_input

X = random_input(2, 4)


def autocast(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        return m.fc(x) @ x.bfloat16().mT


def nested(m, x):
    """Inside autocast that is on, autocast that is off stays where it is."""
    with torch.autocast("cpu", torch.bfloat16):
        y = x * 2
        with torch.autocast("cpu", enabled=False):
            return m.fc(y)


@pytest.mark.parametrize(
    ("function", "kinds"),
    [(autocast, ["Linear", "matmul"]), (nested, ["Linear"])],
)
def test_products_in_graphs_inside_are_told(function, kinds):
    model = net(function, fc=nn.Linear(4, 4)).eval()
    result = transform(model, X, backend="tensorrt", trace="export")
    report = quantization_report(insert_qdq(result.model, result.matches))
    assert [kind for _, kind, _ in report.uncovered] == kinds
    assert all("under torch.autocast, in a graph of its own" in reason for _, _, reason in report.uncovered)
    torch.testing.assert_close(result.model(X), model(X))
