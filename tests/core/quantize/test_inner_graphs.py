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


def branches(m, x):
    return torch.cond(x.sum() > 0, lambda y: m.fc(y), lambda y: y @ m.fc.weight, (x,))


def nested(m, x):
    """Inside autocast that is on, autocast that is off stays where it is."""
    with torch.autocast("cpu", torch.bfloat16):
        y = x * 2
        with torch.autocast("cpu", enabled=False):
            return m.fc(y)


AUTOCAST, COND = "under torch.autocast, in a graph of its own", "by torch's cond, in a graph of its own"


@pytest.mark.parametrize(
    ("function", "kinds", "words"),
    [
        (autocast, ["Linear", "matmul"], AUTOCAST),
        (branches, ["Linear", "matmul"], COND),
        (nested, ["Linear"], AUTOCAST),
    ],
)
def test_products_in_graphs_inside_are_told(function, kinds, words):
    model = net(function, fc=nn.Linear(4, 4)).eval()
    # torch.cond takes no call of a layer that is kept whole, so the program of this one is the user's own.
    source = torch.export.export(model, (X,)) if function is branches else model
    result = transform(source, X, backend="tensorrt")
    report = quantization_report(insert_qdq(result.model, result.matches))
    assert [kind for _, kind, _ in report.uncovered] == kinds
    assert all(words in reason for _, _, reason in report.uncovered)
    torch.testing.assert_close(result.model(X), model(X))
