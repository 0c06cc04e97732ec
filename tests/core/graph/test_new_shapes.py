"""Shapes of what conversions put into a graph."""

import operator

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.conversions import every_conversion
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.modules import symbolic_trace
from support.nets import random_input

X = random_input(2, 5, 8)
LAYERS = {
    "encoder": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    "encoder, norm first": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
    "encoders": nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_sums_of_an_opened_layer_have_shapes(layer):
    graph = transform(nn.Sequential(layer, nn.Linear(8, 3)).eval(), X, patterns=every_conversion()).model.graph
    sums = graph.find_nodes(op="call_function", target=operator.add)
    assert {(shape_of(node), dtype_of(node)) for node in sums} == {((2, 5, 8), torch.float32)}
    assert all(shape_of(value) == (2, 5, 8) for node in sums for value in node.all_input_nodes)


def test_without_inputs_none_are_known():
    graph = transform(nn.Sequential(LAYERS["encoder"]).eval(), patterns=every_conversion()).model.graph
    assert graph.find_nodes(op="call_function", target=operator.add)
    assert not any("tensor_meta" in node.meta for node in graph.nodes)


class Counting(nn.Module):
    """Counts its calls, and gives two values, so that it has no shape of its own."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        self.calls.append(type(x))
        return x, x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.counting, self.layer = Counting(), LAYERS["encoder"]

    def forward(self, x):
        return self.layer(self.counting(x)[0])


def test_modules_of_the_user_are_not_called_for_it():
    calls = []
    for patterns in ([], every_conversion()):
        traced = symbolic_trace(Net().eval(), leaf_modules=[Counting])
        calls.append(len(transform(traced, X, patterns=patterns).model.counting.calls))
    assert calls[0] == calls[1]
