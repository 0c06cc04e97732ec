"""What is the same in every call: of parameters, buffers and sizes, and nothing that an input is written into."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture import capture
from embedl_deploy.graph.every_call import same_in_every_call
from embedl_deploy.quantize import QuantConfig, insert_qdq, quantization_report
from support.nets import net, random_input
from support.small_patterns import QUANTIZABLE

X = random_input(3, 4)


def table(m, x):
    steps = torch.zeros(1, 4, 4)
    steps[:, :, 1] = torch.arange(4).view(1, 4)
    return m.fc(steps.expand(x.shape[0], -1, -1))


def written(m, x):
    steps = torch.zeros(4, 4)
    rows = steps.view(4, 4)
    rows[0] = x[0]
    return m.fc(steps)


def gated(m, x):
    """What comes of it is written into later, in memory of its own."""
    y = m.fc(m.table)
    (y * x).div_(x.sum())
    return y


def kept(m, x):
    y = m.fc(m.seen)
    m.seen.mul_(0.5)
    return y


SAME = {
    "a parameter": lambda m, x: m.fc(torch.relu(m.table)),
    "a table of positions": table,
    "written into later": gated,
    "a tensor that is made in the call": lambda m, x: m.fc(m.table * torch.tensor(0.5).to(x.device)),
    "never dropped": lambda m, x: m.fc(F.dropout(m.table, 0.5, training=False)),
    "sizes": lambda m, x: m.fc(torch.ones_like(x) * x.shape[0]),
}
OTHER = {
    "an input": lambda m, x: m.fc(m.table[0] + x),
    "written into": written,
    "kept for the next call": kept,
    "drawn": lambda m, x: m.fc(torch.rand(3, 4, device=x.device)),
    "dropped": lambda m, x: m.fc(F.dropout(m.table, 0.5)),
}


def model(function):
    buffer = {"seen": torch.ones(3, 4)} if function is kept else {}
    made = net(lambda m, x: function(m, x) + x.sum(), fc=nn.Linear(4, 4), table=nn.Parameter(torch.ones(3, 4)))
    for name, value in buffer.items():
        made.register_buffer(name, value)
    return made


@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_a_product(name):
    graph_module = capture(model({**SAME, **OTHER}[name]), (X,), trace="export").graph_module
    same = same_in_every_call(graph_module.graph)
    (product,) = graph_module.graph.find_nodes(op="call_module", target="fc")
    assert (product in same) == (name in SAME)


def test_it_gets_no_quantizers_unless_they_are_asked_for():
    result = transform(
        net(
            lambda m, x: m.fc(m.table) + m.other(x),
            fc=nn.Linear(4, 4),
            other=nn.Linear(4, 4),
            table=nn.Parameter(torch.ones(3, 4)),
        ),
        patterns=QUANTIZABLE,
    )
    report = quantization_report(insert_qdq(result.model, result.matches))
    rules = {(point.path, point.label): point.rule for point in report.not_quantized}
    assert rules == dict.fromkeys(
        [("fc", "input 0"), ("fc", "weight")],
        "what it computes is the same in every call, of parameters and sizes alone",
    )
    asked = QuantConfig(overrides={"fc": QuantConfig().formats})
    assert not quantization_report(insert_qdq(result.model, result.matches, asked)).not_quantized
