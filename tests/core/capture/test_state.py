"""Models whose forward changes the model: the graph computes what each call of the model computes, or there is none."""

import pytest
import torch
from torch import nn

from embedl_deploy import transform
from embedl_deploy.errors import CaptureError
from support.nets import random_input
from support.small_patterns import PATTERNS

X = random_input(1, 4, 8)
ROWS = X[0]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("b", torch.ones(6, 8))
        self.seen = []
        self.last = None
        self.calls = 0
        self.flags = {"ready": False, "calls": 0}


def made_of(forward):
    return type("Own", (Net,), {"forward": forward})().eval()


class TestForwardThatChangesTheModel:
    @pytest.mark.parametrize("where", ["last", "seen"])
    def test_values_that_it_keeps_for_somebody_to_read(self, where):
        class Keeping(Net):
            def forward(self, x):
                y = self.fc(x)
                if where == "last":
                    self.last = y
                else:
                    self.seen.append(y)
                return torch.relu(y)

        model = Keeping().eval()
        result = transform(model, patterns=PATTERNS)
        assert (model.last, model.seen) == (None, [])
        assert result.report["notes"] == [f"the model's forward keeps values in {where!r}; the graph does not"]
        assert torch.equal(result.model(X), torch.relu(model.fc(X)))

    def test_a_buffer_that_it_computes_from_inputs(self):
        class Running(Net):
            def forward(self, x):
                self.mean = 0.9 * self.mean + 0.1 * x.mean((0, 1))
                return self.fc(x) - self.mean

        model = Running().eval()
        result = transform(model, X, patterns=PATTERNS)
        assert result.report["capture"] == "export"
        torch.testing.assert_close(result.model(X), model.fc(X) - 0.1 * X.mean((0, 1)))
        with pytest.raises(CaptureError, match="sets the buffer 'mean'"):
            transform(model, patterns=PATTERNS)

    @pytest.mark.parametrize("in_place", [True, False])
    def test_a_buffer_that_counts_calls_and_is_read(self, in_place):
        class Counting(Net):
            def forward(self, x):
                if in_place:
                    self.mean += 1
                else:
                    self.mean = self.mean + 1
                return self.fc(x) + self.mean

        model = Counting().eval()
        with pytest.raises(CaptureError, match="sets the buffer 'mean'"):
            transform(model, patterns=PATTERNS)
        result = transform(model, X, patterns=PATTERNS)
        assert torch.equal(result.model(X), model.fc(X) + 1)
        assert "Give example inputs" not in result.report["notes"][0]

    def test_a_buffer_that_counts_calls_and_is_computed_with_before_it_is_read(self):
        class Counting(Net):
            def forward(self, x):
                self.mean += 1
                return self.fc(x) + self.mean * 0.5  # a tensor that no traced value is part of

        model = Counting().eval()
        with pytest.raises(CaptureError, match="sets the buffer 'mean'"):
            transform(model, patterns=PATTERNS)
        result = transform(model, X, patterns=PATTERNS)
        for calls in (1, 2):
            assert torch.equal(result.model(X), model.fc(X) + 0.5 * calls)


def counting(m, x):
    m.calls += 1
    return m.fc(x) * m.calls


def warming_up(m, x):
    m.calls += 1
    return m.fc(x) if m.calls < 100 else x


def starting(m, x):
    if not m.flags["ready"]:
        m.flags["ready"] = True
        return x
    return m.fc(x)


def alternating(m, x):
    m.seen.append(0)
    return m.fc(x) + len(m.seen)


def named(m, x):
    m.last = "again" if m.last else "first"
    return m.fc(x) if m.last == "again" else x


def counting_in_a_dictionary(m, x):
    m.flags["calls"] += 1
    return m.fc(x) if m.flags["calls"] < 100 else x


class TestValuesOfPython:
    @pytest.mark.parametrize(
        ("forward", "name"),
        [
            *((counting, "calls"), (warming_up, "calls"), (starting, "flags"), (alternating, "seen"), (named, "last")),
            (counting_in_a_dictionary, "flags"),
        ],
    )
    @pytest.mark.parametrize("args", [X, None])
    def test_that_are_changed_and_computed_with_are_refused(self, forward, name, args):
        with pytest.raises(CaptureError, match=f"its forward changes '{name}' and computes with it") as caught:
            transform(made_of(forward), args, patterns=PATTERNS)
        assert "torch.export also failed" not in str(caught.value)

    def test_after_torch_export(self):
        with pytest.raises(CaptureError, match="of the largest value, when it is called again"):
            transform(made_of(counting), X, patterns=PATTERNS, trace="export")

    def test_that_nothing_is_computed_with_are_noted(self):
        def forward(m, x):
            m.calls += 1
            m.seen.append("call")
            return m.fc(x)

        model = made_of(forward)
        result = transform(model, patterns=PATTERNS)
        assert (model.calls, model.seen) == (0, [])
        assert torch.equal(result.model(X), model.fc(X))
        assert result.report["notes"] == ["the model's forward changes 'seen', 'calls'; that is not part of the graph"]

    def test_a_table_that_is_made_once(self):
        def forward(m, x):
            if m.last is None:
                m.last = torch.arange(8.0)
            return m.fc(x) + m.last

        model = made_of(forward)
        assert torch.equal(transform(model, patterns=PATTERNS).model(X), model.fc(X) + torch.arange(8.0))

    def test_that_hold_the_same_again_are_no_change(self):
        def forward(m, x):
            m.seen, m.last, m.flags = [], (1.5 * 2, ["a"]), dict(m.flags)
            return m.fc(x)

        model = made_of(forward)
        model.last = (3.0, ["a"])
        assert transform(model, patterns=PATTERNS).report["notes"] == []

    def test_what_a_hook_has_enclosed(self):
        model, calls = made_of(lambda m, x: m.act(m.fc(x))), []
        model.act = nn.Sequential(nn.ReLU())
        model.act.register_forward_hook(lambda module, args, y: (calls.append(0), y * len(calls))[1])
        with pytest.raises(CaptureError, match=r"its forward changes 'act\._forward_hooks' and computes with it"):
            transform(model, patterns=PATTERNS)
        assert calls == []

    def test_a_number_out_of_a_buffer_that_counts(self):
        def forward(m, x):
            m.mean += 1
            return m.fc(x) * float(m.mean.sum())

        with pytest.raises(CaptureError, match="keeps 'mean' for its next call"):
            transform(made_of(forward), patterns=PATTERNS)


def hidden_state(m, x):
    m.last = x if m.last is None else 0.5 * m.last + x
    return m.fc(m.last)


def cached(m, x):
    if m.last is None:
        m.last = torch.ones_like(x[:, :1])
    return m.fc(x) + m.last


class TestTracedValuesThatAreKept:
    def test_and_change_the_next_call_are_refused(self):
        with pytest.raises(CaptureError, match="keeps 'last' for its next call and computes with it"):
            transform(made_of(hidden_state), patterns=PATTERNS)
        with pytest.raises(CaptureError, match="when it is called again"):
            transform(made_of(hidden_state), X, patterns=PATTERNS, trace="symbolic")

    def test_and_make_no_difference_are_noted_where_that_is_known(self):
        model = made_of(cached)
        result = transform(model, X, patterns=PATTERNS, trace="symbolic")
        assert result.report["notes"] == ["the model's forward keeps values in 'last'; the graph does not"]
        assert torch.equal(result.model(X), model.fc(X) + 1)
        with pytest.raises(CaptureError, match="keeps 'last'"):
            transform(model, patterns=PATTERNS)


def added_to(m, x):
    m.last += 1
    return m.fc(x) + m.last


def replaced(m, x):
    y = m.fc(x) + m.last
    m.last = m.last + 1
    return y


def added_to_in_a_dictionary(m, x):
    m.flags["t"] += 1
    return m.fc(x) + m.flags["t"]


class TestTensorsThatAreNoBuffers:
    @pytest.mark.parametrize(
        ("forward", "name"), [(added_to, "last"), (replaced, "last"), (added_to_in_a_dictionary, "flags")]
    )
    def test_that_are_changed_and_read_are_refused(self, forward, name):
        model = made_of(forward)
        model.last, model.flags["t"] = torch.zeros(8), torch.zeros(8)
        with pytest.raises(CaptureError, match=f"changes the tensor '{name}' and computes with it"):
            transform(model, patterns=PATTERNS)
        assert (model.last.sum(), model.flags["t"].sum()) == (0, 0)


def slice_assigned(m, x):
    m.b[:4] = x
    return m.fc(x) + m.b.sum(0)


def copied(m, x):
    m.b[:4].copy_(x)
    return m.fc(x) + m.b[:4]


def index_copied(m, x):
    m.b.index_copy_(0, torch.arange(4), x)
    return m.fc(x) + m.b.mean()


def written_by_out(m, x):
    torch.add(x, 1, out=m.b[:4])
    return m.fc(x) + m.b[:4] * 2


def masked(m, x):
    m.b.masked_fill_(m.b > x.max(), 0)
    return m.fc(x) * float(m.b.sum())


def through_data(m, x):
    m.b.data[:4] = x
    return m.fc(x) + m.b[:4]


def read_before(m, x):
    y = m.fc(x) + m.b.sum(0)
    m.b[:4] = x
    return y


def made_there(m, x):
    t = torch.zeros(5, 8)
    t[:4] += x
    return t.sum(0) + m.fc(x)


class TestTensorsThatTheGraphWritesInto:
    """Once with other inputs, so that what is left of the first call would be seen."""

    @pytest.mark.parametrize(
        "forward",
        [slice_assigned, copied, index_copied, written_by_out, masked, through_data, read_before, made_there],
    )
    def test_and_that_tracing_has_read(self, forward):
        model = made_of(forward)
        with pytest.raises(CaptureError, match=r"writes traced values into .* which a symbolic graph cannot do"):
            transform(model, patterns=PATTERNS)

    @pytest.mark.parametrize("forward", [slice_assigned, index_copied, made_there])
    def test_are_captured_by_torch_export(self, forward):
        result = transform(made_of(forward), ROWS, patterns=PATTERNS)
        assert result.report["capture"] == "export"
        model = made_of(forward)
        model.load_state_dict(result.model.state_dict() | {"b": torch.ones(6, 8)}, strict=False)
        for rows in (ROWS, 2 * ROWS):
            torch.testing.assert_close(result.model(rows), model(rows))

    def test_and_that_only_the_graph_reads(self):
        def forward(m, x):
            m.b[:4] = x
            return torch.matmul(m.b, m.fc(x).T)

        model = made_of(forward)
        result = transform(model, patterns=PATTERNS)
        for rows in (ROWS, 2 * ROWS):
            expected = torch.cat([rows, torch.ones(2, 8)]) @ model.fc(rows).T
            torch.testing.assert_close(result.model(rows), expected)
