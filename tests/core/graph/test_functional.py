"""Functional calls as the modules that they equal."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.graph.forms.fixed_mode import FrozenBatchNorm1d, FrozenBatchNorm2d, FrozenBatchNorm3d
from embedl_deploy.graph.functional import module_class_of_call
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.shapes import propagate_shapes
from embedl_deploy.modules import symbolic_trace
from support.nets import random_input, scrambled


class Holder(nn.Module):
    """Holds tensors under the names that the calls below use."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.linear, self.bn = nn.Conv2d(4, 6, 3), nn.Linear(5, 3), nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.norm, self.plain = nn.LayerNorm(5), nn.LayerNorm((5, 5), elementwise_affine=False)
        self.register_buffer("frozen", torch.randn(6, 4, 1, 1))
        self.function = function
        scrambled(self)

    def forward(self, x):
        return self.function(self, x)


def call_of(function, exported=False, known_shape=False):
    """The graph module and the one node of it that computes."""
    holder = Holder(function).eval()
    x = random_input(2, 4, 5, 5)
    graph_module = torch.export.export(holder, (x,)).module() if exported else symbolic_trace(holder)
    if known_shape:
        propagate_shapes(graph_module, (x,), {})
    calls = [n for n in graph_module.graph.nodes if n.op in ("call_function", "call_method")]
    (node,) = calls
    return graph_module, node


#: How it is written, and the module's class.
FORMS = [
    ("F.relu(x)", nn.ReLU),
    ("F.relu(x, inplace=True)", nn.ReLU),
    ("F.relu(x, True)", nn.ReLU),
    ("x.relu_()", nn.ReLU),
    ("torch.relu(x)", nn.ReLU),
    ("torch.relu(input=x)", nn.ReLU),
    ("x.clamp(min=0)", nn.ReLU),
    ("torch.clamp(x, 0)", nn.ReLU),
    ("x.clamp_min(0)", nn.ReLU),
    ("x.clip_(min=0)", nn.ReLU),
    ("F.relu6(x)", nn.ReLU6),
    ("x.clamp(0, 6)", nn.ReLU6),
    ("torch.clip(x, min=0, max=6)", nn.ReLU6),
    ("F.hardtanh(x, 0, 6)", nn.ReLU6),
    ("F.hardtanh(x, -2, 3)", nn.Hardtanh),
    ("F.hardtanh(x)", nn.Hardtanh),
    ("F.hardtanh_(x, min_val=-0.5)", nn.Hardtanh),
    ("F.leaky_relu(x, 0.3)", nn.LeakyReLU),
    ("F.leaky_relu_(x, negative_slope=0.3)", nn.LeakyReLU),
    ("F.elu(x, 0.5)", nn.ELU),
    ("F.elu_(x, 2.0)", nn.ELU),
    ("F.gelu(x)", nn.GELU),
    ("F.gelu(x, approximate='tanh')", nn.GELU),
    ("F.silu(x, inplace=True)", nn.SiLU),
    ("F.mish(x)", nn.Mish),
    ("F.hardswish(x)", nn.Hardswish),
    ("F.hardsigmoid(x)", nn.Hardsigmoid),
    ("torch.sigmoid(x)", nn.Sigmoid),
    ("x.sigmoid()", nn.Sigmoid),
    ("torch.tanh(x)", nn.Tanh),
    ("x.flatten(1)", nn.Flatten),
    ("torch.flatten(x, 1, 2)", nn.Flatten),
    ("torch.flatten(x)", nn.Flatten),
    ("torch.flatten(x, start_dim=2)", nn.Flatten),
    ("F.adaptive_avg_pool2d(x, 1)", nn.AdaptiveAvgPool2d),
    ("F.adaptive_avg_pool2d(x, (None, 2))", nn.AdaptiveAvgPool2d),
    ("F.avg_pool2d(x, 3)", nn.AvgPool2d),
    ("F.avg_pool2d(x, 3, 1, 1, False, False)", nn.AvgPool2d),
    ("F.avg_pool2d(x, kernel_size=2, ceil_mode=True, divisor_override=3)", nn.AvgPool2d),
    ("F.max_pool2d(x, 3)", nn.MaxPool2d),
    ("F.max_pool2d(x, 3, 2, 1)", nn.MaxPool2d),
    ("F.max_pool2d(x, kernel_size=2, stride=1, dilation=2, ceil_mode=True)", nn.MaxPool2d),
    ("F.linear(x, m.linear.weight)", nn.Linear),
    ("F.linear(x, m.linear.weight, m.linear.bias)", nn.Linear),
    ("F.linear(x, weight=m.linear.weight, bias=m.linear.bias)", nn.Linear),
    ("F.conv2d(x, m.conv.weight)", nn.Conv2d),
    ("F.conv2d(x, m.conv.weight, m.conv.bias, 2, 1)", nn.Conv2d),
    ("F.conv2d(x, m.conv.weight, m.conv.bias, (1, 2), (2, 1), (1, 2))", nn.Conv2d),
    ("F.conv2d(x, m.conv.weight, padding='same')", nn.Conv2d),
    ("F.conv2d(x, m.grouped.weight, m.grouped.bias, groups=2)", nn.Conv2d),
    ("F.conv2d(x, m.frozen)", nn.Conv2d),
    ("F.batch_norm(x, m.bn.running_mean, m.bn.running_var, m.bn.weight, m.bn.bias)", FrozenBatchNorm2d),
    ("F.batch_norm(x, m.bn.running_mean, m.bn.running_var, eps=0.1)", FrozenBatchNorm2d),
    ("torch.batch_norm(x, m.bn.weight, m.bn.bias, m.bn.running_mean, m.bn.running_var, False, 0.1, 0.01, False)",
     FrozenBatchNorm2d),
    ("F.layer_norm(x, (5,), m.norm.weight, m.norm.bias)", nn.LayerNorm),
    ("F.layer_norm(x, [5, 5], eps=0.1)", nn.LayerNorm),
    ("F.layer_norm(x, (5,), m.norm.weight)", nn.LayerNorm),
    ("F.pad(x, (1, 2, 3, 0))", nn.ZeroPad2d),
    ("F.pad(x, (1, 2, -1, 0), 'constant', 0.0)", nn.ZeroPad2d),
]  # fmt: skip


def function_of(text):
    return eval(f"lambda m, x: {text}", {"F": F, "torch": torch})


@pytest.mark.parametrize("exported", [False, True], ids=["symbolic", "ATen"])
@pytest.mark.parametrize(("text", "cls"), FORMS, ids=[text for text, _ in FORMS])
def test_the_module_equals_the_call(text, cls, exported):
    function = function_of(text)
    graph_module, node = call_of(function, exported, known_shape="batch_norm" in text)
    module = get_module(node)
    if exported and module is None:
        # ATen has several names for these: a cropping pad is a slice, and padding by name is resolved.
        assert text in ("F.conv2d(x, m.conv.weight, padding='same')",), f"{node.target} has no module form"
        return
    assert type(module) is cls
    assert issubclass(cls, module_class_of_call(node)) or issubclass(module_class_of_call(node), cls)
    x = random_input(2, 4, 5, 5, seed=3)
    wanted = graph_module(x.clone())
    for training in (False, True):
        module.train(training)
        torch.testing.assert_close(module(x.clone()), wanted, rtol=0, atol=0)


@pytest.mark.parametrize(("text", "cls"), FORMS, ids=[text for text, _ in FORMS])
def test_parameters_and_buffers_are_shared(text, cls):
    graph_module, node = call_of(function_of(text), known_shape="batch_norm" in text)
    module = get_module(node)
    known = {id(t) for t in (*graph_module.parameters(), *graph_module.buffers())}
    own = [t for name, t in (*module.named_parameters(), *module.named_buffers()) if name != "num_batches_tracked"]
    assert {id(t) for t in own} <= known
    assert len(own) == text.count(" m.") + text.count("=m.")
    assert not any(t.is_meta for t in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("text", [text for text, cls in FORMS if cls in (nn.ReLU, nn.SiLU, nn.LeakyReLU, nn.ELU)])
def test_in_place_spellings_give_in_place_modules(text):
    _, node = call_of(function_of(text))
    assert get_module(node).inplace is ("_(" in text or "True" in text)


@pytest.mark.parametrize(
    "text",
    [
        "F.leaky_relu(x, x)",
        "F.linear(x, x)",
        "F.conv2d(x, x)",
        "F.linear(x, m.linear.weight, x)",
        "F.adaptive_avg_pool2d(x, x)",
        "F.batch_norm(x, m.bn.running_mean, m.bn.running_var, training=True)",
        "F.batch_norm(x, None, None, training=True)",
        "F.batch_norm(x, m.bn.running_mean, m.bn.running_var)",
        "F.pad(x, (1, 1, 1, 1, 1, 1, 1, 1))",
        "F.interpolate(x, size=3, mode='bilinear', antialias=True)",
        "F.softmax(x, 1, dtype=torch.float64)",
        "F.group_norm(x, 2)",
        "F.embedding(x, m.linear.weight, max_norm=1.0)",
        "F.conv2d(x[0], m.conv.weight, x)",
        "F.linear(x, m.conv.weight)",
        "F.softplus(x, x)",
        "x.clamp(-1, 1)",
        "x.clamp(max=6)",
        "x.clamp(min=x)",
        "x.clamp_min(x)",
        "x.clamp(min=0.0)",  # of integers it makes floats, and the type is not known here
        "x + x",
        "x.exp()",
    ],
)
def test_what_no_module_computes_has_none(text):
    """Run-time arguments above all: a module could not have them."""
    function = function_of(text)
    graph = symbolic_trace(Holder(function)).graph
    node = [n for n in graph.nodes if n.op.startswith("call_")][-1]
    assert get_module(node) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
@pytest.mark.parametrize(("text", "cls"), [("x.clamp(min=0.0)", nn.ReLU), ("x.clamp(0.0, 6)", nn.ReLU6)])
def test_bounds_that_are_floats_need_values_that_are(text, cls, dtype):
    graph_module = symbolic_trace(Holder(function_of(text)))
    propagate_shapes(graph_module, (torch.arange(-4, 8).to(dtype),), {})
    (node,) = graph_module.graph.find_nodes(op="call_method", target="clamp")
    assert type(get_module(node)) is (cls if dtype.is_floating_point else type(None))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("text", ["m.{conv}(x)", "F.relu(m.{conv}(x))", "F.{pool}(torch.relu(x), 2).sigmoid()"])
def test_a_batch_norm_without_shapes_is_of_the_rank_of_what_comes_before(text, rank):
    holder = Holder(function_of(f"F.batch_norm({text}, m.mean, m.var)".format(conv="layer", pool=f"avg_pool{rank}d")))
    holder.layer = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose3d)[rank - 1](4, 4, 1)
    holder.register_buffer("mean", torch.zeros(4))
    holder.register_buffer("var", torch.ones(4))
    node = list(symbolic_trace(holder).graph.nodes)[-2]
    assert type(get_module(node)) is (FrozenBatchNorm1d, FrozenBatchNorm2d, FrozenBatchNorm3d)[rank - 1]


def test_modules_of_calls_are_not_taken_for_calls_of_constants():
    graph = symbolic_trace(Holder(lambda m, x: F.relu(m.linear.weight) + x)).graph
    relu = next(node for node in graph.nodes if node.op == "call_function")
    assert isinstance(get_module(relu), nn.ReLU)


def test_frozen_batch_norm_stays_in_evaluation_mode():
    module = FrozenBatchNorm2d(2)
    assert module.train() is module
    nn.Sequential(module).train()
    assert not module.training
