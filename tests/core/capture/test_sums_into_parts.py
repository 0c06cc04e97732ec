"""Sums into parts of what a graph has computed are sums, and give what PyTorch gives in place."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.graph.effects import overwrites
from embedl_deploy.recomposition import RecomposeAttentionPattern
from support.nets import net, random_input

X = random_input(2, 3, 5, 5).double()
Y = random_input(2, 3, 4, 4, seed=1).double()


def scores(x):
    return x @ x.mT


def in_place(m, x, y):
    s = scores(x)
    s[:, :, 1:, 1:] += y
    return s.softmax(-1)


def written_back(m, x, y):
    s = scores(x)
    part = s[:, :, 1:, 1:].view(2, 3, 2, 2, 2, 2)
    rows, columns = y[:, :, :, :2].view(2, 3, 2, 2, 2, 1), y[:, :, :, 2:].view(2, 3, 2, 2, 1, 2)
    s[:, :, 1:, 1:] = (part + rows + columns).view(2, 3, 4, 4)
    return s.softmax(-1)


def from_behind(m, x, y):
    s = scores(x)
    s[..., :-1, 0:4] += y[:1]
    return s + 1


def one_after_the_other(m, x, y):
    s = scores(x)
    s[:, :, :, 3:] += y[..., :1, 2:]
    s[:, 1:] += 2.0 * x[:, :2]
    return s.exp()


def a_view_is_written_into(m, x, y):
    s = scores(x)
    s[:, :, 1:, 1:].add_(y)
    return s


def of_a_wider_type(m, x, y):
    s = scores(x.float())
    s[:, :, 1:, 1:] += y * 1e10
    return s + 1


@pytest.mark.parametrize(
    "function",
    [in_place, written_back, from_behind, one_after_the_other, a_view_is_written_into, of_a_wider_type],
)
def test_a_sum(function):
    model = net(function)
    result = transform(model, (X, Y), patterns=[], trace="export")
    assert not any(overwrites(node) for node in result.model.graph.nodes)
    torch.testing.assert_close(result.model(X, Y), function(None, X, Y), rtol=1e-12, atol=1e-12)


def read_before(m, x, y):
    s = scores(x)
    t = s.view(2, 3, 25)
    s[:, :, 1:, 1:] += y
    return t * 2


def no_sum(m, x, y):
    s = scores(x)
    s[:, :, 1:, 1:] = s[:, :, 1:, 1:] * y
    return s


def of_the_input(m, x, y):
    x = x.view(2, 3, 5, 5)
    x[:, :, 1:, 1:] += y
    return x + 0


def another_part(m, x, y):
    s = scores(x)
    s[:, :, 1:, 1:] = s[:, :, :4, :4] + y
    return s


def every_other(m, x, y):
    s = scores(x)
    s[:, :, ::2] += y[:, :, :3, :1]
    return s


@pytest.mark.parametrize("function", [read_before, no_sum, of_the_input, another_part, every_other])
def test_what_is_left(function):
    result = transform(net(function), (X, Y), patterns=[], trace="export")
    assert any(overwrites(node) for node in result.model.graph.nodes)
    torch.testing.assert_close(result.model(X.clone(), Y), function(None, X.clone(), Y), rtol=1e-12, atol=1e-12)


class Pooled(nn.Module):
    """Attention as in MViT: a class token in front, relative positions of the others, an open batch."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.positions = nn.Parameter(torch.randn(4, 4, 4))

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(x.shape[0], 5, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        attention = q @ k.transpose(-2, -1) * 0.5
        attention[:, :, 1:, 1:] += torch.einsum("bhqc,qkc->bhqk", q[:, :, 1:], self.positions)
        return attention.softmax(-1) @ v


def test_attention_with_relative_positions_is_one_with_an_open_batch():
    model = Pooled().double().eval()
    x = random_input(2, 5, 8).double()
    result = transform(model, (x,), patterns=[RecomposeAttentionPattern()], trace="export")
    assert result.report["applied_count"] == 1
    more = random_input(3, 5, 8, seed=1).double()
    torch.testing.assert_close(result.model(more), model(more), rtol=1e-12, atol=1e-12)
