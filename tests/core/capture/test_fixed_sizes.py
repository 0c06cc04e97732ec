"""A loop over a size that was to be open is told as that, with its line and what to do."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture.fixed_sizes import is_loop, without_proxies
from embedl_deploy.errors import CaptureError, InputError

X = torch.randn(2, 6, 8)
OPEN = {"frames": {1: torch.export.Dim("time", min=2, max=32)}}


class Tracker(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(8, 8)

    def forward(self, frames):
        state, states = frames[:, 0] * 0, []
        for t in range(frames.shape[1]):
            state = torch.tanh(self.cell(frames[:, t]) + state)
            states.append(state)
        return torch.stack(states, 1)


@pytest.mark.parametrize("trace", ["auto", "export"])
def test_an_open_size_that_is_looped_over_is_refused_with_the_loop(trace):
    with pytest.raises(CaptureError) as caught:
        transform(Tracker(), X, patterns=[], trace=trace, dynamic_shapes=OPEN)
    said = str(caught.value)
    assert "the model's code fixes 'time' to 6 (UserError: Constraints violated (time)!)" in said
    assert "test_fixed_sizes.py" in said and "(for t in range(frames.shape[1]):)" in said
    assert "a Python loop over a size is unrolled" in said and "nn.LSTM" in said
    assert "TruthfulProxy" not in said and "torch.where" not in said


def test_symbolic_tracing_tells_of_the_loop_alone():
    with pytest.raises(CaptureError, match=r"(?s)a value that is not known .*a Python loop over a size") as caught:
        transform(Tracker(), X, patterns=[], trace="symbolic")
    assert "concrete_args" not in str(caught.value)


def test_a_loop_over_a_fixed_size_is_noted():
    result = transform(Tracker(), X, patterns=[])
    (note,) = result.report["notes"]
    assert note.endswith("the loop is unrolled, so the graph has as many steps as the example inputs need")
    with pytest.raises(InputError, match="A dimension that the code loops over cannot be open"):
        result.model(torch.randn(2, 9, 8))


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("for t in range(n):", True),
        ("ys = [f(x) for x in xs.unbind(1)]", True),
        ("if x in names:", False),
        ("y = self.for_each(x)", False),
    ],
)
def test_lines_that_loop(code, wanted):
    assert is_loop(code) is wanted


def test_proxies_are_told_in_words():
    said = without_proxies("list indices must be integers or slices, not TruthfulProxy")
    assert said == "list indices must be integers or slices, not a value that is not known in symbolic tracing"
