"""What is written into is read as the result of the write: which calls give their input back, and who reads what."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.graph.effects import overwrites
from embedl_deploy.graph.in_place import read_results_of_writes, tensor_given_back
from embedl_deploy.graph.shapes import propagate_shapes
from embedl_deploy.modules import symbolic_trace
from support.agreement import fused_counts, reasons
from support.nets import net, random_input
from support.small_patterns import PATTERNS, ConvAddActPattern

X = random_input(2, 4, 5, 5)


class Renamed(nn.ReLU):
    """A ReLU that gives something else than it writes into."""

    def forward(self, x):
        return super().forward(x).clone()


def parts():
    return {"conv": nn.Conv2d(4, 4, 1), "bn": nn.BatchNorm2d(4)}


def traced(function, **modules):
    model = net(function, **modules)
    graph_module = symbolic_trace(model)
    propagate_shapes(graph_module, (X,), {})
    return graph_module


WRITES = {
    "add_": lambda m, v: v.add_(1),
    "+=": lambda m, v: operator.iadd(v, 1),
    "__imul__": lambda m, v: v.__imul__(2),
    "torch.relu_": lambda m, v: torch.relu_(v),
    "by keyword": lambda m, v: torch.relu_(input=v),
    "inplace": lambda m, v: F.relu(v, inplace=True),
    "inplace by position": lambda m, v: F.leaky_relu(v, 0.1, True),
    "a dropout": lambda m, v: F.dropout(v, 0.5, False, True),
    "a layer": lambda m, v: m.relu(v),
    "an operator": lambda m, v: torch.ops.aten.relu_.default(v),
    "another argument": lambda m, v: torch.add(m.tensor, 1, out=v),
    "an operator's other argument": lambda m, v: torch.ops.aten.add.out(m.tensor, m.tensor, out=v),
    "a copy": lambda m, v: v.copy_(m.tensor),
    "another shape": lambda m, v: v.squeeze_(),
}


@pytest.mark.parametrize("name", WRITES)
def test_what_gives_its_input_back(name):
    """The graph says so, and so does PyTorch."""
    modules = {"relu": nn.ReLU(inplace=True), "tensor": X.clone()}
    graph_module = traced(lambda m, x: (v := x * 2, WRITES[name](m, v), v)[1:], **modules)
    value, write = (
        next(node for node in graph_module.graph.nodes if node.name == "mul"),
        next(node for node in graph_module.graph.nodes if overwrites(node) or "dropout" in node.name),
    )
    assert tensor_given_back(write) is value
    read_results_of_writes(graph_module)
    assert list(graph_module.graph.output_node().all_input_nodes) == [write]
    made = X * 2
    assert WRITES[name](net(lambda m, x: x, **modules), made) is made


OTHERS = {
    "no write": lambda m, v: v.relu(),
    "a part of it": lambda m, v: v.__setitem__(0, 1),
    "a number": lambda m, v: operator.iadd(v.shape[0], 1),
    "not in place in torch": lambda m, v: operator.imatmul(v, v),
    "a layer of somebody's": lambda m, v: m.renamed(v),
    "two that are written": lambda m, v: torch.max(v, 1, out=(v, v)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_sure_to(name):
    graph_module = symbolic_trace(
        net(lambda m, x: (v := x * 2, OTHERS[name](m, v))[1:], renamed=Renamed(inplace=True)), leaf_modules=[Renamed]
    )
    for node in graph_module.graph.nodes:
        assert tensor_given_back(node) is None


def test_a_number_is_not_the_one_that_it_was():
    """``more += 1`` gives another number than ``n``, which is read afterwards."""

    def forward(m, x):
        n = x.size(0)
        more = n
        more += 1
        flags = x.shape[-1]
        flags |= 2
        return x * n + more * x.shape[-1] + flags

    model = net(forward)
    for x in (X, None):
        result = transform(model, x, patterns=[])
        assert result.report["capture"] == "symbolic"
        assert torch.equal(result.model(X), model(X))


def step(x):
    length = x.stride(0)
    more, most = length, length
    more += 1
    most *= 2
    return x + length * 1.0 + more * 10.0 + most * 100.0


def total(x):
    found = x.sum().item()
    more = found
    more += 1.5
    return found, more


def shape(x):
    sizes = x.shape[:2]
    longer = sizes
    longer += (25,)
    return x.reshape(longer).sum(-1).reshape(sizes)


def product(x):
    y = x * 2
    named = y
    named @= x
    return y, named


@pytest.mark.parametrize("function", [step, total, shape, product], ids=lambda function: function.__name__)
def test_what_may_be_no_tensor_is_what_it_was(function):
    """Nothing says what is written into, with example inputs or without, and it is read under its old name."""
    model = net(lambda m, x: function(x))
    for x in (X, None):
        result = transform(model, x, patterns=[], trace="symbolic")
        for other in (X, X[:, :3] * 3):
            torch.testing.assert_close(result.model(other), model(other))


def test_who_reads_what():
    """Readers before a write stay, each write has those behind it, and an attribute of the model is left alone."""

    def forward(m, x):
        v = m.conv(x)
        before = v.tanh()
        v.add_(1)
        between = v.exp()
        v.relu_()
        m.count.add_(1)
        return before, between, v.neg(), m.count, v

    graph_module = traced(forward, conv=nn.Conv2d(4, 4, 1), count=torch.zeros(1))
    read_results_of_writes(graph_module)
    graph_module.graph.lint()
    nodes = {node.name: node for node in graph_module.graph.nodes}
    read = {name: [value.name for value in nodes[name].all_input_nodes] for name in ("tanh", "exp", "relu_", "neg")}
    assert read == {"tanh": ["conv"], "exp": ["add_"], "relu_": ["add_"], "neg": ["relu_"]}
    assert [value.name for value in nodes["output"].all_input_nodes] == ["tanh", "exp", "neg", "count", "relu_"]


class Sliced(nn.Module):
    """A layer that works in place begins the second part, and what the first gives is used again (CRAFT's VGG)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.second = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.last = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1))

    def forward(self, x):
        a = self.first(x)
        b = self.second(a)
        c = self.last(b)
        return torch.cat([c, a, b], 1)


def summed(m, x):
    """The sum is written into one branch, and read under that name."""
    out = m.bn(m.conv(x))
    named = out
    out += m.other(x)
    m.relu(named)
    return m.other(out) + named


ALL_FUSED = {
    "parts": (Sliced, {"QConv": 3}),
    "a sum": (
        lambda: net(summed, other=nn.Conv2d(4, 4, 1), relu=nn.ReLU(inplace=True), **parts()),
        {"QConvAdd": 1, "QConv": 1},
    ),
}


@pytest.mark.parametrize("trace", ["symbolic", "export", "given"])
@pytest.mark.parametrize("name", ALL_FUSED)
def test_what_is_read_after_a_write_is_fused(name, trace):
    torch.manual_seed(0)
    make, counts = ALL_FUSED[name]
    model = make().eval()
    given = symbolic_trace(model) if trace == "given" else model
    result = transform(given, X, patterns=PATTERNS, **({} if trace == "given" else {"trace": trace}))
    assert fused_counts(result.model) == counts
    torch.testing.assert_close(result.model(X), model(X), rtol=1e-5, atol=1e-5)


def into_an_input(m, x):
    x += m.bn(m.conv(x))
    return torch.relu(x)


def into_a_view_of_an_input(m, x):
    v = x.view(2, 4, 5, 5)
    v.add_(m.bn(m.conv(x)))
    return torch.relu(v)


def seen_through_a_view(m, x):
    v = x * 2
    part = v.view(2, 4, 5, 5)
    v += m.bn(m.conv(x))
    return torch.relu(v), part * 2


KEPT = {
    into_an_input: "add changes the input 'x' in place",
    into_a_view_of_an_input: "add_ changes the input 'x' in place",
    seen_through_a_view: " in place, and mul_1 reads it afterwards",
}


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize("function", KEPT, ids=lambda function: function.__name__)
def test_what_others_see_remains_written(function, trace):
    model = net(function, **parts())
    result = transform(model, X, patterns=[ConvAddActPattern()], trace=trace)
    (reason,) = reasons(result)
    assert KEPT[function].replace("add ", "add_ " if trace == "export" else "add ") in reason
    got, wanted = X.clone(), X.clone()
    torch.testing.assert_close((result.model(got), got), (model(wanted), wanted))


def test_a_buffer_remains_written():
    model = net(lambda m, x: (m.total.add_(m.bn(m.conv(x))), torch.relu(m.total))[1], **parts())
    model.register_buffer("total", X * 0)
    result = transform(model, X, patterns=[ConvAddActPattern()], trace="export")
    (reason,) = reasons(result)
    assert reason.endswith("add_ changes the model's 'total' in place")
    for _ in range(2):
        torch.testing.assert_close(result.model(X), model(X))
