"""Where replacements of functional calls are placed: each has a module of its own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture import Trace
from embedl_deploy.patterns import Pattern
from support.nets import random_input
from support.small_patterns import FusedChain


class _Pooling(Pattern):
    tree = (nn.AvgPool2d,)
    graft = FusedChain


class Block(nn.Module):
    """The same function three times, of other windows."""

    def forward(self, x):
        y = F.avg_pool2d(x, 3, 1, 1)
        z = F.avg_pool2d(x.sin() + y, 5, 1, 2)
        return F.avg_pool2d(x + z, (1, 3), 1, (0, 1))


@pytest.mark.parametrize("trace", [Trace.SYMBOLIC, Trace.EXPORT])
def test_the_same_function_with_other_settings_in_one_block(trace):
    model, x = nn.Sequential(Block(), Block(), Block()).eval(), random_input(1, 2, 9, 9)
    result = transform(model, x, patterns=[_Pooling()], trace=trace)
    called = [node.target for node in result.model.graph.nodes if node.op == "call_module" and "pool" in node.target]
    assert len(called) == len(set(called)) == 9
    assert torch.equal(result.model(x), model(x))
