"""Modules that torch.export leaves whole."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from embedl_deploy.capture import capture
from embedl_deploy.capture.leaf_calls import _calls
from support.nets import random_input

X = random_input(2, 4, 8)


class Parts(nn.Module):
    """Modules for ``compute``, a function of the model and its input."""

    def __init__(self, compute):
        super().__init__()
        torch.manual_seed(1)
        self.fc, self.other, self.norm = nn.Linear(8, 8), weight_norm(nn.Linear(8, 8)), nn.LayerNorm(8)
        self.relu, self.drop, self.conv = nn.ReLU(inplace=True), nn.Dropout(), nn.Conv1d(4, 4, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.pool, self.unpool = nn.MaxPool1d(2, return_indices=True), nn.MaxUnpool1d(2)
        self.compute = compute

    def forward(self, x):
        return self.compute(self, x)


def writes_through(m, x):
    x = x * 1.0
    m.relu(x)  # what it returns is not read, and what it did is
    y = m.drop(x)
    y += 1  # in evaluation mode a dropout returns its input
    return x


def without_gradient(m, x):
    with torch.no_grad():
        y = m.fc(x)
    return m.norm(y + x)


def shared(m, x):
    return m.fc(m.fc(x)) + F.linear(x, m.fc.weight)


def unpooled(m, x):
    y, where = m.pool(x)
    return m.unpool(y, where, output_size=x.shape)


def recurrent(m, x):
    y, (h, c) = m.lstm(x)
    return {"y": y, "state": [h, c]}


CASES = {
    "one after the other": lambda m, x: m.norm(m.relu(m.conv(m.fc(x)))),
    "by keyword": lambda m, x: m.fc(input=x),
    "parametrized": lambda m, x: m.other(x),
    "attention": lambda m, x: m.attention(x, x, x, need_weights=False)[0],
    "attention and its weights": lambda m, x: m.attention(x, x, value=x),
    "writes": writes_through,
    "gradients off": without_gradient,
    "shared": shared,
    "sizes": unpooled,
    "recurrent": recurrent,
}


def modules_called(graph_module):
    """Targets of the calls of modules, in order, but for guards."""
    calls = graph_module.graph.find_nodes(op="call_module", sort=True)
    return [node.target for node in calls if not str(node.target).startswith("_guards")]


@pytest.mark.parametrize("case", CASES)
def test_both_ways_of_capture_call_the_same_modules(case):
    model = Parts(CASES[case]).eval()
    graphs = [capture(model, (X,), trace=trace).graph_module for trace in ("symbolic", "export")]
    called = [modules_called(graph_module) for graph_module in graphs]
    assert called[0] == called[1]
    assert called[1]
    wanted, *got = (part(X) for part in (model, *graphs))
    for output in got:
        torch.testing.assert_close(output, wanted, rtol=0, atol=0)
    for path in called[1]:
        ours, users = graphs[1].get_submodule(path), model.get_submodule(path)
        assert type(ours) is type(users) and ours is not users
        assert ours._compiled_call_impl is None
    assert not _calls


def test_parameters_are_read_from_the_module_that_holds_them():
    graph_module = capture(Parts(shared).eval(), (X,), trace="export").graph_module
    assert dict(graph_module.named_parameters()).keys() == {"fc.weight", "fc.bias"}
    with torch.no_grad():
        graph_module.fc.weight.zero_()
        graph_module.fc.bias.zero_()
    assert not graph_module(X).any()


def autocast(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = m.fc(x)
    return m.fc(y.float())


def mapped(m, x):
    return m.fc(torch.vmap(m.fc)(x))


@pytest.mark.parametrize("compute", [autocast, mapped])
def test_what_a_context_changes_is_looked_into(compute):
    model = Parts(compute).eval()
    graph_module = capture(model, (X,), trace="export").graph_module
    assert modules_called(graph_module) == ["fc"]
    torch.testing.assert_close(graph_module(X), model(X), rtol=0, atol=0)


def test_modes_can_be_changed_afterwards():
    """Dropout is off in the trace; in a graph of ATen calls it would stay so."""
    graph_module = capture(Parts(lambda m, x: m.drop(m.fc(x))).eval(), (X,), trace="export").graph_module
    assert (graph_module.train()(X) == 0).any()
    assert not (graph_module.eval()(X) == 0).any()


@pytest.mark.parametrize("training", [False, True])
def test_everything_is_in_the_mode_of_the_model(training):
    model = Parts(lambda m, x: m.drop(m.fc(x))).train(training)
    model.drop.eval()
    graph_module = capture(model, (X,), trace="export").graph_module
    assert not graph_module.drop.training
    assert {part.training for part in graph_module.modules() if part is not graph_module.drop} == {training}


def test_hooks_of_a_module_run_in_it():
    model = Parts(lambda m, x: m.norm(m.fc(x))).eval()
    model.fc.register_forward_hook(lambda module, args, output: output * 2)
    graph_module = capture(model, (X,), trace="export").graph_module
    assert modules_called(graph_module) == ["fc", "norm"]
    torch.testing.assert_close(graph_module(X), model(X), rtol=0, atol=0)


class Whole(nn.Module):
    """To be kept whole; returns a structure of its own."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x, *, scale, form):
        y = self.fc(x) * scale
        return {form: (y, None, [x])}


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.whole = Whole()

    def forward(self, x):
        found = self.whole(x, scale=x.shape[1], form="both")["both"]
        return found[0] + found[2][0]


def test_a_class_that_a_backend_keeps_whole():
    model = Outer().eval()
    graph_module = capture(model, (X,), trace="export", leaf_modules=[Whole]).graph_module
    assert modules_called(graph_module) == ["whole"]
    torch.testing.assert_close(graph_module(X), model(X), rtol=0, atol=0)
    (opened,) = [capture(model, (X,), trace="export").graph_module]
    assert modules_called(opened) == ["whole.fc"]


def test_a_model_that_fails_is_as_it_was():
    model = Parts(lambda m, x: m.fc(x) if m.fc(x).sum() > 0 else x).eval()
    with pytest.raises(Exception, match="cannot be captured"):
        capture(model, (X,), trace="export")
    assert model.fc._compiled_call_impl is None
    assert not _calls


@torch.fx.wrap
def doubled_by(x, weight, sizes):
    return F.linear(x, weight) * len(sizes)


class CallsAFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        return doubled_by(x, self.fc.weight, [x.shape[0], 3]).relu()


@pytest.mark.parametrize(("known", "targets"), [(True, [doubled_by]), (False, [])])
def test_a_function_that_fx_keeps_whole_is_kept_if_a_pattern_knows_it(known, targets):
    model, own = CallsAFunction().eval(), doubled_by
    graph_module = capture(model, (X,), trace="export", is_leaf_function=lambda function: known).graph_module
    calls = [node for node in graph_module.graph.nodes if getattr(node.target, "__name__", "") == "doubled_by"]
    assert [node.target for node in calls] == targets
    assert all(node.args[1].target == "fc.weight" for node in calls)
    assert torch.equal(graph_module(X), model(X))
    assert doubled_by is own and not _calls


def test_a_function_with_weights_that_no_pattern_knows_is_left_to_export():
    model = CallsAFunction().eval()
    assert capture(model, (X,)).method == "symbolic"
    assert capture(model, (X,), is_leaf_function=lambda function: True).method == "symbolic"
    captured = capture(model, (X,), is_leaf_function=lambda function: False)
    assert captured.method == "export"
    assert captured.notes[-1].endswith(
        "symbolic tracing would keep doubled_by whole, which computes with weights of the model"
    )
