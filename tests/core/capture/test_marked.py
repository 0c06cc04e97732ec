"""Literals that stood for the model's type follow it; those that the author wrote stay."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.capture import capture
from embedl_deploy.graph.edit import deep_copy
from support.nets import random_input

X = random_input(2, 3, 8)


class Of(nn.Module):
    """Computes ``compute(self, x)``."""

    def __init__(self, compute):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.tied = nn.Linear(8, 8), nn.Linear(8, 8)
        self.tied.weight = self.fc.weight
        self.register_buffer("table", torch.rand(8))
        self.plain = torch.rand(8)
        self.compute = compute

    def forward(self, x):
        return self.compute(self, x)

    @property
    def dtype(self):
        return next(self.parameters()).dtype


def norm(m, x):
    h = x.to(torch.float32)
    return m.fc((h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype))


def eager_attention(m, x):
    mask = torch.full((3, 3), torch.finfo(x.dtype).min, dtype=x.dtype, device=x.device).triu(1)
    return torch.softmax(x @ x.mT + mask, -1, dtype=torch.float32).type_as(x) @ x


@torch.no_grad()
def positions(m, x):
    return m.fc(x + torch.arange(8, dtype=torch.int64, device=x.device).to(dtype=m.dtype) / 8)


def without_grad(m, x):
    with torch.no_grad():
        ones = torch.ones(8, dtype=m.dtype, device=x.device)
    return m.fc(x) * ones


def limits(m, x):
    length = x.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).eps)
    return m.fc((x / length).masked_fill(x > 1, -torch.finfo(x.dtype).max).clamp(min=-2.0))


def cast_in_16_bits(m, x):  # as T5 does
    h = x.to(torch.float32) * 2
    return m.fc(h.to(m.dtype) if m.dtype in (torch.float16, torch.bfloat16) else h)


WAYS = {
    "norm": norm,
    "attention": eager_attention,
    "positions": positions,
    "without grad": without_grad,
    "limits": limits,
    "cast in 16 bits": cast_in_16_bits,
    "constants": lambda m, x: m.fc(x) * torch.tensor(0.1, dtype=x.dtype) + x.new_tensor([0.1] * 8) + torch.tensor(0.3),
    "a tensor that is no buffer": lambda m, x: F.linear(x * m.table + m.plain.to(x), m.tied.weight),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_converted_graph_computes_what_the_converted_model_does(name, dtype):
    model = Of(WAYS[name]).eval()
    captured = capture(model, (X,), trace="export")
    graph, x = captured.graph_module, X.to(dtype)
    assert captured.notes == ()
    assert torch.equal(graph(X), model(X))
    assert torch.equal(deep_copy(graph).to(dtype)(x), model.to(dtype)(x))


@pytest.mark.parametrize("name", ["attention", "without grad", "constants", "a tensor that is no buffer"])
def test_a_graph_moves_to_another_device(name):
    graph = capture(Of(WAYS[name]).eval(), (X,), trace="export").graph_module.to("meta")
    assert graph(X.to("meta")).device.type == "meta"


def test_so_does_one_of_a_program():
    program = torch.export.export(Of(eager_attention).eval(), (X,))
    assert capture(program).graph_module.to("meta")(X.to("meta")).device.type == "meta"


def test_an_upcast_stays_and_what_changes_nothing_is_left_out():
    graph = capture(Of(lambda m, x: norm(m, x.to(m.dtype))).eval(), (X,), trace="export").graph_module.half()
    casts = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.to.dtype)
    assert [cast.args[1] if isinstance(cast.args[1], torch.dtype) else cast.args[1].name for cast in casts] == [
        torch.float32,
        "dtype",
    ]


def test_parameters_are_the_models_own_and_shared_as_there():
    model = Of(WAYS["a tensor that is no buffer"]).eval()
    graph = capture(model, (X,), trace="export").graph_module
    assert torch.equal(graph.get_parameter("tied.weight"), model.fc.weight)
    assert not {type(tensor) for tensor in graph.parameters()} - {nn.Parameter}
    both = capture(Of(lambda m, x: m.tied(m.fc(x))).eval(), (X,), trace="export").graph_module
    assert both.fc.weight is both.tied.weight


def asks(m, x):
    return m.fc(x.to(m.dtype)) + (1e-4 if x.dtype is torch.float32 else 0)


def does_not_run(m, x):
    if x.dtype is not torch.float32:
        raise TypeError("float32 alone")
    return m.fc(x.to(m.dtype))


def autocast(m, x):
    with torch.autocast("cpu", torch.bfloat16):
        return m.fc(x @ x.mT @ x).to(torch.float32)


@pytest.mark.parametrize(
    ("compute", "why"),
    [
        (asks, "it takes another path"),
        (does_not_run, "it raises TypeError: float32 alone"),
        (autocast, "it computes under torch.autocast to torch.bfloat16"),
    ],
)
def test_a_model_that_does_something_else_in_another_type(compute, why):
    model = Of(compute).eval()
    captured = capture(model, (X,), trace="export")
    assert torch.equal(captured.graph_module(X), model(X))
    (note,) = captured.notes
    assert note.startswith("tensors that the model's code creates in float32 stay in float32") and why in note


def test_a_branch_by_type_is_told_where_no_literal_is_left():
    model = Of(lambda m, x: m.fc(x) if x.dtype is torch.float32 else m.fc(x) * 2).eval()
    for verify in (True, False):
        (note,) = capture(model, (X,), trace="export", verify=verify).notes
        assert note.startswith("the model's code computes something else in another floating-point type")


def test_without_comparison_the_calls_of_both_types_are_compared():
    model = Of(eager_attention).eval()
    captured = capture(model, (X,), trace="export", verify=False)
    assert captured.notes == ()
    assert captured.graph_module.half()(X.half()).dtype is torch.float16
    (note,) = capture(Of(asks).eval(), (X,), trace="export", verify=False).notes
    assert "it takes another path" in note


def test_limits_of_numbers_are_as_before():
    real = torch.finfo
    capture(Of(limits).eval(), (X,), trace="export")
    assert torch.finfo is real


@pytest.mark.parametrize("compute", [norm, eager_attention, lambda m, x: m.fc(x)], ids=["norm", "attention", "layer"])
def test_a_model_is_exported_once(compute, monkeypatch):
    calls, export = [], torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda *args, **kwargs: calls.append(1) or export(*args, **kwargs))
    capture(Of(compute).eval(), (X,), trace="export")
    assert calls == [1]
