"""Python code that asks for a class is answered; C code that is about to read memory is not told that it may."""

import functools
import sys
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.capture.asking import python_asks
from embedl_deploy.errors import CaptureError
from support.nets import net, random_input
from support.small_patterns import PATTERNS

X = random_input(3, 8)
T = random_input(1, 3, 8, seed=1)[0]


class Asked:
    """Something that notes who asks for its class."""

    def __init__(self):
        self.said = []

    @property
    def __class__(self):
        self.said.append(python_asks(sys._getframe(1)))
        return int


def _with_a_local_name(x):
    asks = isinstance
    return asks(x, int)


def _unpacked(x):
    pair = (x, int)
    return isinstance(*pair)


def _matched(x):
    match x:
        case int():
            return True


QUESTIONS = {
    "isinstance": lambda x: isinstance(x, int),
    "of_what_calls_gave": lambda x: isinstance(max([x], key=id), (dict, tuple)),
    "class": lambda x: x.__class__ is int,
    "getattr": lambda x: getattr(x, "__class__", None),
    "local_name": _with_a_local_name,
    "unpacked": _unpacked,
    "functools": lambda x: functools.singledispatch(lambda value: value)(x),
    "match": _matched,
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_python_asks(name):
    for _ in range(40):  # the interpreter replaces instructions that it meets often
        asked = Asked()
        QUESTIONS[name](asked)
        assert set(asked.said) == {True}


@pytest.mark.parametrize("use", [torch.tensor, torch.as_tensor, torch.FloatTensor])
def test_c_asks(use):
    asked = Asked()
    with pytest.raises((TypeError, RuntimeError)):
        use(asked)
    assert set(asked.said) <= {False}


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: isinstance(x if x.said == [] else None, dict),
        lambda x: list(map(isinstance, [x], [dict])),
        lambda x: setattr(torch.zeros(1), "data", x),
    ],
)
def test_in_doubt_it_is_said_so(ask):
    asked = Asked()
    with suppress(TypeError):
        ask(asked)
    assert asked.said == [None]


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x + x

    @staticmethod
    def backward(ctx, g):
        return g + g


def _data_of_a_buffer(m, x):
    m.b.data = x.mean(0)
    return m.a(x)


def _set(m, x):
    return m.a(x) + torch.zeros(8).set_(x.mean(0))


def _real(m, x):
    y = torch.ones(3, 8) * 1j
    y.real = x
    return m.a(y.real)


#: Each took the memory of a proxy for that of a tensor, and ended the process. Beside it, what the model computes.
USED_BY_C = {
    "data": (_data_of_a_buffer, lambda a: a(X)),
    "set": (_set, lambda a: a(X) + X.mean(0)),
    "real": (_real, lambda a: a(X)),
    "autograd_function": (lambda m, x: m.a(Double.apply(x)), lambda a: a(2 * X)),
    "tensor": (lambda m, x: m.a(torch.as_tensor(x)), lambda a: a(X)),
    "class_of_torch": (lambda m, x: m.a(torch.FloatTensor(x)), lambda a: a(X)),
    "index": (lambda m, x: m.a(x) + T[(x > 9).long()[0, :3]], lambda a: a(X) + T[0]),
}


@pytest.mark.parametrize("name", USED_BY_C)
def test_what_c_code_would_take_for_a_tensor_is_captured_by_torch_export(name):
    forward, wanted = USED_BY_C[name]
    model = net(forward, a=nn.Linear(8, 8), b=torch.zeros(8))
    result = transform(model, X, patterns=PATTERNS)
    torch.testing.assert_close(result.model(X), wanted(model.a), rtol=1e-6, atol=1e-6)
    said, traced = "", None
    try:
        traced = transform(model, patterns=PATTERNS).model
    except CaptureError as error:
        said = str(error)
    if traced is None:
        assert "cannot be traced symbolically" in said
    else:  # more may be with a newer torch, and then it is right
        torch.testing.assert_close(traced(X), wanted(model.a), rtol=1e-6, atol=1e-6)


def _data_of_an_input(m, x):
    y = x + 0
    y.data = x * 2
    return m.a(y)


def _data_of_a_parameter(m, x):
    m.p.data = x.mean(0)
    return m.a(x) + m.p


@pytest.mark.parametrize(
    ("forward", "what"),
    [
        (_data_of_an_input, "what becomes of 'data', which is set, of 'add'"),
        (_data_of_a_parameter, "what becomes of 'data', which is set, of 'p'"),
        (lambda m, x: m.a(x) + x.data_ptr() % 7, r"the memory \('data_ptr'\) of 'x'"),
        (lambda m, x: m.a(x) + F.relu(m.p).untyped_storage()[0], r"the memory \('untyped_storage'\) of 'relu'"),
    ],
)
def test_a_graph_cannot_say_what_becomes_of_memory(forward, what):
    with pytest.raises(CaptureError, match=what):
        transform(net(forward, a=nn.Linear(8, 8), p=nn.Parameter(torch.ones(8))), patterns=PATTERNS)


def test_attributes_that_no_tensor_has_are_the_models_own_business():
    def forward(m, x):
        x.of_mine = 2.0
        return m.a(x) * x.of_mine

    model = net(forward, a=nn.Linear(8, 8))
    assert torch.equal(transform(model, patterns=PATTERNS).model(X), model.a(X) * 2)
