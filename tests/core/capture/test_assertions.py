"""Assertions are no part of a graph."""

import torch
from torch import nn

from embedl_deploy.capture import capture
from support.nets import net, random_input

X = random_input(2, 3)


def test_assertions_of_types_and_of_values_go():
    def forward(m, x):
        torch._check((x < 100).all().item())
        torch._assert_async((x > -100).all())
        return m.fc(x).to(torch.float64).to(torch.float32)

    model = net(forward, fc=nn.Linear(3, 3))
    captured = capture(model, (X,), trace="export")
    names = {str(node.target) for node in captured.graph_module.graph.nodes if node.op == "call_function"}
    assert names == {"aten.to.dtype"}
    (note,) = captured.notes
    assert "what the model's code asserts of values is not part of the graph" in note
    assert f"{__file__}:" in note


def test_what_is_known_of_a_size_that_is_computed_stays():
    def forward(m, x):
        size = (x > 0).sum().clamp(max=3).item()
        torch._check(size >= 1)
        torch._check(size <= 3)
        return m.fc(x)[:size]

    model = net(forward, fc=nn.Linear(3, 3))
    graph = capture(model, (X,), trace="export").graph_module
    assert torch.equal(graph(X), model(X))
    assert torch.equal(torch.export.export(graph, (X,)).module()(X), model(X))
