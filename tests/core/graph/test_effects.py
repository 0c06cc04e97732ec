"""In-place writes: what may be moved past them, and that sharing of memory is never missed."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from embedl_deploy.graph.effects import Effects
from embedl_deploy.modules import symbolic_trace


class Holder(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.other = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.relu, self.relu_in_place = nn.ReLU(), nn.ReLU(inplace=True)
        self.dropout, self.identity = nn.Dropout(), nn.Identity()
        self.flatten, self.sequence = nn.Flatten(), nn.Sequential(nn.ReLU(inplace=True))
        self.function = function
        self.register_buffer("average", torch.zeros(2, 1, 1))

    def forward(self, x, y):
        return self.function(self, x, y)


def graph_of(function):
    graph = symbolic_trace(Holder(function).eval()).graph
    return Effects(graph), {node.name: node for node in graph.nodes}, graph


def hazard(function, *names):
    effects, nodes, _ = graph_of(function)
    return effects.hazard([nodes[name] for name in names])


class TestWrites:
    """Of ``conv`` and ``other``, ``conv``'s input is overwritten between them."""

    @pytest.mark.parametrize(
        "write",
        [
            lambda m, v: v.add_(1),
            lambda m, v: v.relu_(),
            lambda m, v: operator.iadd(v, 1),
            lambda m, v: operator.imul(v, 2),
            lambda m, v: operator.ipow(v, 2),
            lambda m, v: operator.iand(v, 1),
            lambda m, v: operator.ior(v, 1),
            lambda m, v: v.__setitem__(0, 1),
            lambda m, v: F.relu(v, inplace=True),
            lambda m, v: F.relu(v, True),
            lambda m, v: F.leaky_relu_(v),
            lambda m, v: torch.relu_(v),
            lambda m, v: torch.ops.aten.relu_.default(v),
            lambda m, v: torch.add(v, 1, out=v),
            lambda m, v: m.relu_in_place(v),
            lambda m, v: m.sequence(v),
            lambda m, v: F.dropout(v, 0.5, False, True),
            lambda m, v: F.dropout(v, p=0.5, training=False, inplace=True),
            lambda m, v: F.threshold(v, 0.0, 1.0, inplace=True),
            lambda m, v: F.celu(v, 1.0, True),
            lambda m, v: v.copy_(v * 2),
            lambda m, v: nn.init.zeros_(v),
        ],
    )
    def test_are_seen(self, write):
        def forward(m, x, y):
            z = m.conv(y)
            write(m, y)
            return m.other(z)

        found = hazard(forward, "conv", "other")
        assert found is not None
        assert "changes y in place between conv and the end" in found

    @pytest.mark.parametrize(
        "read",
        [
            lambda m, v: v.add(1),
            lambda m, v: v + 1,
            lambda m, v: v.__getitem__(0),
            lambda m, v: operator.invert(v),
            lambda m, v: operator.inv(v),
            lambda m, v: operator.is_(v, None),
            lambda m, v: F.relu(v, inplace=False),
            lambda m, v: torch.flatten(v, 1),
            lambda m, v: torch.max(v, 1, True),
            lambda m, v: m.relu(v),
            lambda m, v: torch.ops.aten.relu.default(v),
        ],
    )
    def test_reads_are_none(self, read):
        def forward(m, x, y):
            z = m.conv(y)
            w = read(m, y)
            return m.other(z), w

        assert hazard(forward, "conv", "other") is None


class TestSharing:
    @pytest.mark.parametrize(
        "view",
        [
            lambda m, v: v,
            lambda m, v: v.view(-1),
            lambda m, v: v[0],
            lambda m, v: v[...],
            lambda m, v: v.T,
            lambda m, v: torch.flatten(v, 1),
            lambda m, v: v.chunk(2)[0],
            lambda m, v: v.detach(),
            lambda m, v: v.contiguous(),
            lambda m, v: v.to(torch.float32),
            lambda m, v: m.dropout(v),
            lambda m, v: F.dropout(v, 0.5, False),
            lambda m, v: m.identity(v),
            lambda m, v: m.flatten(v),
            lambda m, v: m.relu_in_place(v),
            lambda m, v: v.mul_(2),
        ],
    )
    def test_a_write_through_a_view_counts(self, view):
        def forward(m, x, y):
            seen = view(m, y)
            z = m.conv(y)
            seen.add_(1)
            return m.other(z)

        assert "in place between conv and the end" in hazard(forward, "conv", "other")

    @pytest.mark.parametrize(
        "fresh",
        [
            lambda m, v: v + 1,
            lambda m, v: m.relu(v),
            lambda m, v: F.relu(v),
            lambda m, v: v.clone(),
            lambda m, v: torch.cat([v, v]),
            lambda m, v: F.softmax(v, 1),
        ],
    )
    def test_a_write_to_a_value_of_its_own_does_not(self, fresh):
        def forward(m, x, y):
            other = fresh(m, y)
            z = m.conv(y)
            other.add_(1)
            return m.other(z), other

        assert hazard(forward, "conv", "other") is None

    def test_torch_agrees_on_what_is_fresh(self):
        """Every operation and module that is taken for fresh really gives memory of its own."""
        x = torch.randn(2, 2, 4, 4)
        for function in (
            lambda m, v: v + 1, lambda m, v: m.relu(v), lambda m, v: m.conv(v), lambda m, v: F.relu(v),
            lambda m, v: F.softmax(v, 1), lambda m, v: torch.cat([v]), lambda m, v: F.adaptive_avg_pool2d(v, 4),
            lambda m, v: F.max_pool2d(v, 1), lambda m, v: F.avg_pool2d(v, 1), lambda m, v: v.clone(),
            lambda m, v: v * 1, lambda m, v: v.mean((), keepdim=False), lambda m, v: torch.stack([v]),
            lambda m, v: v.sum(()), lambda m, v: v.sum([]),
        ):  # fmt: skip
            assert function(Holder(None), x).data_ptr() != x.data_ptr()


class TestOwnWrites:
    def test_of_a_value_read_afterwards(self):
        def forward(m, x, y):
            z = m.conv(x)
            return F.relu(z.add_(1)), z * 2

        assert hazard(forward, "add_", "relu") == "add_ changes conv in place, and mul reads it afterwards"

    def test_of_a_value_returned(self):
        def forward(m, x, y):
            z = m.conv(x)
            return F.relu(z.add_(1)), z

        assert "output reads it afterwards" in hazard(forward, "add_", "relu")

    def test_of_a_value_of_nobody_else(self):
        assert hazard(lambda m, x, y: F.relu(m.conv(x).add_(1)), "conv", "add_", "relu") is None

    def test_of_a_sum_which_does_not_share_memory_with_what_was_added(self):
        def forward(m, x, y):
            skip = m.other(y)
            z = m.conv(x)
            z += skip
            return F.relu(z, inplace=True), skip * 2

        assert hazard(forward, "conv", "add", "relu") is None

    def test_of_an_input_which_is_the_callers(self):
        assert hazard(lambda m, x, y: F.relu(x.add_(m.conv(y))), "conv", "add_", "relu") == (
            "add_ changes the input 'x' in place"
        )

    def test_of_a_value_read_only_before(self):
        def forward(m, x, y):
            z = m.conv(x)
            before = z * 2
            return F.relu(z.add_(1)), before

        assert hazard(forward, "add_", "relu") is None

    def test_of_a_buffer_which_outlives_the_call(self):
        effects, _, moved, y = averaging()
        assert effects.hazard([moved, y]) == "mul__tensor changes the model's 'average' in place"

    def test_of_a_buffer_by_another_read_of_it(self):
        effects, read_again, moved, _ = averaging()
        assert list(effects.written_after(read_again)) == [moved]


def averaging():
    """``average *= 0.9; y = average + 1``, with ``average`` read twice, as torch.export writes it."""
    graph = fx.Graph(Holder(None))
    read, read_again = graph.get_attr("average"), graph.get_attr("average")
    moved = graph.call_function(torch.ops.aten.mul_.Tensor, (read, 0.9))
    y = graph.call_function(torch.ops.aten.add.Tensor, (moved, 1))
    graph.output((y, read_again))
    return Effects(graph), read_again, moved, y


class TestPosition:
    def test_writes_before_and_after_do_no_harm(self):
        def forward(m, x, y):
            y.add_(1)
            z = m.other(m.conv(y))
            y.mul_(2)
            return z, y

        assert hazard(forward, "conv", "other") is None

    def test_a_graph_without_writes_is_free(self):
        effects, nodes, graph = graph_of(lambda m, x, y: m.other(m.conv(x)) + y)
        assert effects.hazard(list(graph.nodes)) is None
        assert list(effects.written_after(nodes["x"])) == []

    def test_written_after(self):
        def forward(m, x, y):
            y.add_(1)
            z = y.view(-1)
            w = m.conv(x)
            z.mul_(2)
            w.sub_(1)
            return w

        effects, nodes, _ = graph_of(forward)
        assert [node.name for node in effects.written_after(nodes["view"])] == ["mul_"]
        assert [node.name for node in effects.written_after(nodes["y"])] == ["add_", "mul_"]
        assert [node.name for node in effects.written_after(nodes["conv"])] == ["sub_"]

    def test_the_last_write_before_a_reader(self):
        def forward(m, x, y):
            w = m.conv(x)
            a = m.other(w)
            w.view(-1).mul_(2)
            b = m.other(w)
            w.sub_(1)
            return a + b, w

        effects, nodes, _ = graph_of(forward)
        last = [effects.last_write(nodes["conv"], before=nodes[name]) for name in ("other", "other_1", "output")]
        assert last == [None, nodes["mul_"], nodes["sub_"]]
        assert effects.last_write(nodes["x"], before=nodes["output"]) is None, "the convolution's memory is its own"
