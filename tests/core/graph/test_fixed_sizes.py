"""Which sizes are the same in every call: those of layers with weights, and what keeps them."""

import pytest
import torch
from torch import fx, nn

from embedl_deploy.graph.fixed_sizes import size_is_fixed
from embedl_deploy.graph.shapes import propagate_shapes, shape_of
from support.nets import net, random_input

VALUES = {
    "an input": (lambda m, x: x, "..."),
    "a tensor of the model": (lambda m, x: m.table, "##"),
    "linear": (lambda m, x: m.fc(x), "..#"),
    "linear, as a function": (lambda m, x: nn.functional.linear(x, m.fc.weight), "..#"),
    "a convolution": (lambda m, x: m.conv(x), ".#."),
    "a sum with a layer": (lambda m, x: m.gelu(x + m.fc(x)), "..#"),
    "a sum with a size of one": (lambda m, x: x + m.fc(x)[..., :1], "..."),
    "turned": (lambda m, x: m.fc(x).transpose(0, 2), "#.."),
    "permuted": (lambda m, x: m.fc(x).permute(0, 2, 1), ".#."),
    "a mean": (lambda m, x: x.mean(-1, keepdim=True), "..#"),
    "heads": (lambda m, x: m.fc(x).view(x.size(0), -1, 2, 3), "..##"),
    "heads by number": (lambda m, x: (y := m.fc(x)).reshape(2, 3, 2, y.shape[-1] // 2), "####"),
    "a view by an open size": (lambda m, x: x.reshape(x.shape[0], 3, x.shape[2]), ".#."),
    "an axis more": (lambda m, x: x.unsqueeze(-1), "...#"),
    "places": (lambda m, x: x[:, None, :, :1], ".#.#"),
    "joined": (lambda m, x: torch.cat([m.fc(x), m.fc(x)], -1), "..#"),
    "joined with open ones": (lambda m, x: torch.cat([m.fc(x), x], -1), "..."),
    "flat": (lambda m, x: m.fc(x).flatten(0, 1), ".#"),
    "flat, as a module": (lambda m, x: m.flatten(m.fc(x)), ".."),
    "parts": (lambda m, x: m.fc(x).chunk(2, -1)[1], "..#"),
    "a product": (lambda m, x: m.fc(x).mT @ x, ".#."),
    "one of several values": (lambda m, x: m.lstm(x)[0], "..."),
    "one of several values of several": (lambda m, x: m.lstm(x)[1][0], "..."),
    "unknown": (lambda m, x: m.fc(x).cumsum(-1), "..."),
}


@pytest.mark.parametrize("name", VALUES)
def test_what_fixes_a_size(name):
    function, wanted = VALUES[name]
    model = net(
        function,
        lstm=nn.LSTM(5, 4, batch_first=True),
        fc=nn.Linear(5, 6 if "sum" not in name else 5),
        conv=nn.Conv1d(3, 4, 1),
        gelu=nn.GELU(),
        flatten=nn.Flatten(),
        table=nn.Parameter(torch.ones(2, 3)),
    )
    graph_module = fx.symbolic_trace(model)
    propagate_shapes(graph_module, (random_input(2, 3, 5),), {})
    (value,) = graph_module.graph.output_node().all_input_nodes
    assert "".join(".#"[size_is_fixed(value, axis)] for axis in range(-len(shape_of(value)), 0)) == wanted


def test_what_an_export_has_noted_counts():
    batch = torch.export.Dim("batch")
    program = torch.export.export(nn.ReLU(), (random_input(2, 3),), dynamic_shapes=({0: batch},))
    graph_module = program.module()
    propagate_shapes(graph_module, (random_input(2, 3),), {})
    (value,) = graph_module.graph.output_node().all_input_nodes
    assert [size_is_fixed(value, axis) for axis in (-2, -1)] == [False, True]
