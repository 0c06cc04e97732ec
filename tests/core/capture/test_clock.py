"""A model that computes with the time is refused, and one that only asks for it is captured."""

import time

import pytest
import torch
from torch import nn

from embedl_deploy.capture import capture
from embedl_deploy.errors import CaptureError
from support.nets import net, random_input

X = random_input(2, 4)
CLOCKS = [time.time, time.time_ns, time.perf_counter, time.monotonic]


@pytest.mark.parametrize("trace", ["symbolic", "export", "auto"])
@pytest.mark.parametrize("name", ["time", "monotonic_ns"])
def test_what_hardly_differs_from_call_to_call_is_noticed(name, trace):
    """A second is a billionth of what time.time() gives."""
    model = net(lambda m, x: m.fc(x) * getattr(time, name)(), fc=nn.Linear(4, 4))
    with pytest.raises(CaptureError, match=rf"calls time\.{name}\(\), and its outputs depend on"):
        capture(model, (X,), trace=trace)
    assert [time.time, time.time_ns, time.perf_counter, time.monotonic] == CLOCKS


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_who_measures_how_long_it_takes_is_told(trace):
    def forward(m, x):
        start = time.perf_counter()
        y = m.fc(x)
        m.seconds = {"fc": time.perf_counter() - start}
        return y

    model = net(forward, fc=nn.Linear(4, 4), seconds={})
    captured = capture(model, (X,), trace=trace)
    assert any("calls time.perf_counter(); if the graph uses the time, it is" in note for note in captured.notes)
    torch.testing.assert_close(captured.graph_module(X), model(X))


def test_a_library_that_asks_is_not_the_model():
    captured = capture(net(lambda m, x: m.fc(x), fc=nn.Linear(4, 4)), (X,), trace="export")
    assert not any("time." in note for note in captured.notes)
