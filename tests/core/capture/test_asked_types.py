"""Types and devices that a model's code asks its own tensors for, in symbolic graphs."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture import capture
from embedl_deploy.capture.marked import MarkedModel
from support.nets import net, random_input

X = random_input(2, 3, 4)


def of_the_weights(self):
    return next(self.parameters()).dtype


ASKING = {
    "a cast": lambda m, x: m.fc(x.float().softmax(-1).to(of_the_weights(m))),
    "a new tensor": lambda m, x: m.fc(x) + torch.ones(4, dtype=of_the_weights(m)) * 2,
    "a limit": lambda m, x: m.fc(x).masked_fill(x > 0, torch.finfo(of_the_weights(m)).min).softmax(-1),
    "a device": lambda m, x: m.fc(x) + torch.arange(4, device=next(m.parameters()).device),
}


@pytest.mark.parametrize("name", ASKING)
def test_what_was_asked_for_follows_the_model(name):
    model = net(ASKING[name], fc=nn.Linear(4, 4))
    captured = capture(model, (X,), trace="symbolic")
    assert captured.notes == ()
    torch.testing.assert_close(captured.graph_module(X), model(X), rtol=0, atol=0)
    half = X.half()
    got, wanted = captured.graph_module.half()(half), model.half()(half)
    assert got.dtype == wanted.dtype
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_what_the_author_wrote_stays():
    model = net(lambda m, x: x.to(torch.float32).softmax(-1).to(of_the_weights(m)), fc=nn.Linear(4, 4))
    graph_module = capture(model, (X,), trace="symbolic").graph_module
    assert next(node.args[1] for node in graph_module.graph.find_nodes(op="call_method", target="to")) is torch.float32
    assert graph_module.half()(X.half()).dtype == torch.float16


def test_without_such_literals_nothing_is_traced_twice(monkeypatch):
    marked = []
    monkeypatch.setattr(MarkedModel, "of", lambda model, args, kwargs, mark: marked.append(type(model)))
    capture(net(lambda m, x: m.fc(x).float() * 0.5, fc=nn.Linear(4, 4)), (X,), trace="symbolic")
    assert not marked
    capture(net(lambda m, x: m.fc(x).to(torch.float32), fc=nn.Linear(4, 4)), (X,), trace="symbolic")
    assert len(marked) == 1


def test_a_model_that_does_something_else_in_another_type_is_told():
    def function(m, x):
        dtype = of_the_weights(m)
        return m.fc(x.to(dtype)) if dtype == torch.float32 else m.fc(x.float().to(dtype)) * 2

    result = transform(net(function, fc=nn.Linear(4, 4)), X, patterns=[], trace="symbolic")
    (note,) = result.report["notes"]
    assert note.startswith("tensors that the model's code creates in float32 stay in float32") and note.endswith(
        "model.half()"
    )
