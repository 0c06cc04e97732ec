"""Whether an operator that copies its input can be left out."""

import pytest
import torch
from torch import fx

from embedl_deploy.graph import why_copy_is_needed


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda x: (x * 2).clone() + 1, None),
        (lambda x: torch.relu_((x * 2).clone()), None),
        (
            lambda x: torch.relu_(x.clone()),
            "relu_ overwrites its output in place, and would overwrite what x belongs to",
        ),
        (
            lambda x: (y := x * 2, torch.relu_(y.clone()) + y)[1],
            "relu_ overwrites its output in place, and the input is used elsewhere",
        ),
    ],
)
def test_writes_that_would_be_let_through(forward, reason):
    graph_module = fx.symbolic_trace(forward)
    (copy,) = graph_module.graph.find_nodes(op="call_method", target="clone")
    assert why_copy_is_needed(copy) == reason
