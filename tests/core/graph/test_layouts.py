"""Views of values that a rewrite or a quantizer may lay out in memory in another way."""

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from embedl_deploy import transform
from embedl_deploy.graph.layouts import take_any_layout
from embedl_deploy.quantize import quantize
from support.nets import net, random_input


class Heads(nn.Module):
    """Attention whose result, heads interleaved, is viewed without a copy."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = (layer(x).view(b, n, 4, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).view(b, n, 16))


@pytest.mark.parametrize("trace", ["symbolic", "export"])
def test_heads_are_viewed_whatever_attention_is_computed_by(trace):
    model, x = Heads().eval(), random_input(2, 6, 16)
    result = transform(model, x, backend="tensorrt", trace=trace)
    assert result.verify(x).max_abs == 0
    wanted = model(x)
    found = quantize(result, [x], progress=False)(x)
    assert float((found - wanted).detach().norm() / wanted.detach().norm()) < 0.1


def targets(graph_module):
    return [node.target for node in graph_module.graph.nodes if node.op.startswith("call_")]


def test_functions_and_methods():
    model = fx.symbolic_trace(net(lambda _self, x: x.view(4, 2).view_as(x).view(-1)))
    take_any_layout(model)
    assert targets(model) == ["reshape", "reshape_as", "reshape"]
    program = torch.export.export(net(lambda _self, x: x.view(4, 2) * 2), (random_input(2, 4),)).module()
    take_any_layout(program)
    assert torch.ops.aten.reshape.default in targets(program)
    assert torch.ops.aten.view.default not in targets(program)


@pytest.mark.parametrize(
    "forward",
    [
        lambda _self, x: x.view(torch.int32),
        lambda _self, x: x.view(dtype=torch.int32),
    ],
)
def test_another_type_of_the_same_bits_is_no_shape(forward):
    model = fx.symbolic_trace(net(forward))
    take_any_layout(model)
    assert targets(model) == ["view"]


def test_what_is_written_through_a_view_stays_one():
    def forward(_self, x):
        y = x * 2
        y.view(-1).add_(1)
        return y.view(-1)

    model = fx.symbolic_trace(net(forward))
    take_any_layout(model)
    model.recompile()
    assert targets(model)[1:] == ["view", "add_", "reshape"]
    x = random_input(2, 4)
    torch.testing.assert_close(model(x), (x * 2 + 1).flatten())
