"""One name for one operation, however it is written."""

import operator
import re

import pytest
import torch
import torch.nn.functional as F
from torch import fx

from embedl_deploy.graph.operators import COMMUTATIVE, is_commutative, operation, operation_of_target
from embedl_deploy.modules import symbolic_trace

aten = torch.ops.aten


def foreign(x):
    return x


def last_call(function):
    graph = symbolic_trace(function).graph
    return [node for node in graph.nodes if node.op.startswith("call_")][-1]


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("relu", ["relu", "relu_", F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, aten.relu.default,
                  aten.relu_.default, aten.relu]),
        ("add", ["add", "add_", operator.add, operator.iadd, torch.add, torch.Tensor.add_, aten.add.Tensor,
                 aten.add_.Tensor]),
        ("mul", ["mul", operator.mul, operator.imul, torch.mul, aten.mul.Tensor]),
        ("div", ["div", operator.truediv, operator.itruediv, torch.div]),
        ("sub", [operator.sub, operator.isub, torch.sub]),
        ("bitwise_and", [operator.and_, operator.iand, torch.bitwise_and]),
        ("bitwise_or", [operator.or_, operator.ior]),
        ("conv2d", [F.conv2d, torch.conv2d, aten.conv2d.default]),
        ("linear", [F.linear, aten.linear.default]),
        ("gelu", [F.gelu, aten.gelu.default]),
        ("getitem", [operator.getitem]),
        ("invert", [operator.invert]),
        ("flatten", ["flatten", torch.flatten, aten.flatten.using_ints]),
        ("softmax", ["softmax", F.softmax, torch.softmax, aten.softmax.int]),
    ],
)  # fmt: skip
def test_spellings_share_a_name(name, targets):
    assert {str(target): operation_of_target(target) for target in targets} == {str(t): name for t in targets}


#: What torch's documentation calls an alias, and keeps a name of its own here.
_NOT_ALIASES = {
    "linalg.det",
    "linalg.inv",
    "linalg.pinv",
    "linalg.slogdet",
    "linalg.matrix_exp",
    "linalg.matrix_power",
} | {"linalg.householder_product"}


def _documented_aliases():
    """(name, what it is an alias of) of every function that torch's documentation calls an alias."""
    for name in dir(torch):
        text = getattr(getattr(torch, name), "__doc__", None)
        found = re.search(r"Alias (?:for|of) :func:`torch\.([\w.]+)", text) if isinstance(text, str) else None
        if found and found.group(1) not in _NOT_ALIASES and callable(getattr(torch, name)):
            yield name, found.group(1)


@pytest.mark.parametrize(("alias", "name"), list(_documented_aliases()))
def test_what_torch_documents_as_an_alias_is_one_operation(alias, name):
    other = torch
    for part in name.split("."):
        other = getattr(other, part)
    assert operation_of_target(getattr(torch, alias)) == operation_of_target(other)
    if hasattr(torch.Tensor, alias):
        assert operation_of_target(alias) == operation_of_target(other)


def test_an_operator_of_someone_else_is_one_operation_as_packet_and_as_overload():
    packet = torch.ops.prims.add
    assert operation_of_target(packet) is operation_of_target(packet.default) is packet.default


def test_foreign_functions_and_namespaces_stand_for_themselves():
    assert operation_of_target(foreign) is foreign
    assert operation_of_target(len) is len
    overload = torch.ops.prims.add.default
    assert operation_of_target(overload) is overload


def test_private_and_special_names_keep_their_underscores():
    assert operation_of_target("__getitem__") == "__getitem__"
    assert operation_of_target("_weird_") == "_weird_"


def test_only_functions_and_methods_are_operations():
    graph = fx.Graph()
    x = graph.placeholder("x")
    assert operation(x) is None
    assert operation(graph.get_attr("w")) is None
    assert operation(graph.call_module("m", (x,))) is None
    assert operation(graph.output(x)) is None


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x, y: torch.add(x, y), "add"),
        (lambda x, y: torch.add(x, y, alpha=1), "add"),
        (lambda x, y: torch.add(x, y, alpha=2), None),
        (lambda x, y: x.add_(y, alpha=0.5), None),
        (lambda x, y: torch.sub(x, y, alpha=2), None),
        (lambda x, y: x - y, "sub"),
    ],
)
def test_a_scaled_sum_is_no_sum(function, name):
    assert operation(last_call(function)) == name


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda x, y: x + y, True),
        (lambda x, y: x.mul_(y), True),
        (lambda x, y: torch.maximum(x, y), True),
        (lambda x, y: x - y, False),
        (lambda x, y: x / y, False),
        (lambda x, y: torch.add(x, y, alpha=2), False),
        (lambda x, y: torch.matmul(x, y), False),
    ],
)
def test_commutative(function, wanted):
    assert is_commutative(last_call(function)) is wanted


def test_commutative_operations_do_commute():
    """Every name in the list, checked by computing."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(-5, 5, (20,), generator=generator) for _ in range(2))
    for name in COMMUTATIVE:
        assert torch.equal(getattr(torch, name)(x, y), getattr(torch, name)(y, x)), name
