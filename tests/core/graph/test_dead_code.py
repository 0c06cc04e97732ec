"""What a rewrite leaves without a reader goes; what has effects stays."""

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from embedl_deploy import transform
from embedl_deploy.capture import capture
from embedl_deploy.graph.dead_code import remove_unused
from embedl_deploy.modules import FusedModule, symbolic_trace
from embedl_deploy.patterns import Pattern, insert_call, replace_match
from support.nets import net, random_input
from support.small_patterns import ConvBNActPattern, ConvPattern


def unknown(x):
    return x


fx.wrap("unknown")


@pytest.mark.parametrize(
    ("function", "stays"),
    [
        (lambda m, x: x.shape[0] // 2, False),
        (lambda m, x: x.size(1), False),
        (lambda m, x: (x + 1).view(x.size(0), -1), False),
        (lambda m, x: m.weight * 2, False),
        (lambda m, x: x.add_(1), True),
        (lambda m, x: torch.rand_like(x), True),
        (lambda m, x: F.dropout(x), True),
        (lambda m, x: F.dropout(x, 0.1, False), False),
        (lambda m, x: F.dropout(x, training=False), False),
        (lambda m, x: F.dropout(x, p=0.0), False),
        (lambda m, x: torch.dropout(x, 0.1, train=True), True),
        (lambda m, x: F.scaled_dot_product_attention(x, x, x), False),
        (lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1), True),
        (lambda m, x: x.bernoulli(), True),
        (lambda m, x: torch._assert(x.sum() > 0, "positive"), True),
        (lambda m, x: unknown(x), True),
        (lambda m, x: m.bn(x), True),
    ],
)
def test_what_goes(function, stays):
    model = net(lambda m, x: (function(m, x), x * 3)[1], weight=nn.Parameter(torch.ones(1)), bn=nn.BatchNorm2d(3))
    graph_module = symbolic_trace(model)
    unread = [n for n in graph_module.graph.nodes if not n.users and n.op.startswith("call_")]
    remove_unused(unread, (), ())
    left = [n for n in graph_module.graph.nodes if not n.users and n.op not in ("placeholder", "output")]
    assert bool(left) is stays


class Shuffle(FusedModule):
    """Channels of two groups in turns."""

    def forward(self, x, *sizes):
        return F.channel_shuffle(x, 2)


class ShufflePattern(Pattern):
    tree = ("view", "transpose", "reshape")

    def replace(self, pattern_match):
        first = pattern_match.tree_match.nodes[0]
        node = insert_call(pattern_match, Shuffle(), (first.args[0],))
        replace_match(pattern_match, node)
        return [node]


def shuffled(m, x):
    x = m.bn(m.conv(x)).relu()
    b, c, h, w = x.size(0), x.size(1), x.shape[2], x.shape[3]
    x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)
    return x.mul(x.size(0))


def test_sizes_that_only_the_replaced_views_read_go():
    model = net(shuffled, conv=nn.Conv2d(4, 4, 1), bn=nn.BatchNorm2d(4))
    result = transform(model, patterns=[ShufflePattern(), ConvBNActPattern(), ConvPattern()])
    assert result.report["applied_count"] == 2
    assert list(result.report["unfused"].values()) == ["size", "mul"]
    assert result.verify(random_input(2, 4, 3, 3)).max_abs < 1e-6


def test_what_was_read_by_what_is_replaced_goes():
    class Tail(Pattern):
        tree = (torch.relu,)

        def replace(self, pattern_match):
            node = pattern_match.tree_match.last
            node.replace_all_uses_with(node.all_input_nodes[0].all_input_nodes[0])
            node.graph.erase_node(node)
            return []

    result = transform(net(lambda m, x: torch.relu(torch.exp(x))), patterns=[Tail()])
    assert [n.op for n in result.model.graph.nodes] == ["placeholder", "output"]


@pytest.mark.parametrize("trace", ["symbolic", "export", "given"])
def test_what_the_model_computes_and_does_not_return_is_no_reader(trace):
    class Model(nn.Module):
        def forward(self, x):
            y = x.exp()
            before = y.clone()
            before.view(-1).sum()
            z = x * 2
            z.view(-1).add_(1)  # a write that is read
            return y.relu() + z

    x = torch.randn(2, 3)
    model = fx.symbolic_trace(Model()) if trace == "given" else Model()
    found = capture(model, (x,), **({} if trace == "given" else {"trace": trace})).graph_module
    (exp,) = (node for node in found.graph.nodes if "exp" in str(node.target))
    assert ["relu" in str(user.target) for user in exp.users] == [True]
    torch.testing.assert_close(found(x), x.exp().relu() + x * 2 + 1)
