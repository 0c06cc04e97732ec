"""Whatever a forward does to its model, and to what that refers to, is put back; objects keep their identity."""

import random
from collections import Counter, OrderedDict, UserDict, deque
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.quantize import quantize
from embedl_deploy.verify import run_unchanged, state_kept
from embedl_deploy.verify.difference import two_calls_unchanged
from support.nets import net, random_input

X = random_input(2, 4)


class Slotted:
    __slots__ = ("late", "value")

    def __init__(self):
        self.value = 1


@dataclass(frozen=True)
class Settings:
    seen: list = field(default_factory=list)


class Keeper(nn.Module):
    """A model with much to change, and all of it reachable."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.p = nn.Parameter(torch.ones(4))
        self.register_buffer("b", torch.tensor([1.0, float("nan")]))
        self.plain, self.wide = torch.zeros(3), torch.zeros(1).expand(4)
        self.n, self.text = 0, "a"
        self.cfg = {"last": None, "deep": {"list": [1, [2]], "tensor": torch.zeros(2)}}
        self.ordered, self.count = OrderedDict(a=1, b=2), Counter("aab")
        self.seen, self.recent, self.array = {1, 2}, deque([1, 2, 3], maxlen=3), np.zeros(3)
        self.slotted, self.settings = Slotted(), Settings()
        self.space, self.user = SimpleNamespace(a=[1]), UserDict(a=[1])
        self.generators = [torch.Generator().manual_seed(1), random.Random(1), np.random.default_rng(1)]
        kept = self.enclosed = []

        def hook(module, args, output, defaults=[]):  # noqa: B006 - what lies in a default stays between calls
            kept.append(output)
            defaults.append(output)

        self.hook = hook
        self.fc.register_forward_hook(hook)

    def forward(self, x):
        return self.fc(x) + self.p


def state_of(value, seen=None):
    """Identities and values of all that a model refers to, found another way than the code under test does."""
    seen = {} if seen is None else seen
    if id(value) in seen or isinstance(value, (type, str, int, float, bool, type(None))):
        return value if not isinstance(value, float) else repr(value)
    seen[id(value)] = value
    parts = [id(value)]
    if isinstance(value, torch.Tensor):
        parts += [value.shape, value.dtype, value.requires_grad, value.grad is None, repr(value.tolist())]
    elif isinstance(value, torch.Generator):
        parts += [value.get_state().tolist()]
    elif isinstance(value, (random.Random, np.random.Generator)):
        parts += [repr(value.getstate() if isinstance(value, random.Random) else value.bit_generator.state)]
    elif isinstance(value, np.ndarray):
        parts += [value.tolist()]
    elif isinstance(value, dict):
        parts += [(key, state_of(item, seen)) for key, item in value.items()]
    elif isinstance(value, (list, tuple, set, deque)):
        parts += [state_of(item, seen) for item in value]
    elif callable(value) and hasattr(value, "__closure__"):
        parts += [state_of([cell.cell_contents for cell in value.__closure__ or ()][0:], seen)[1:]]
        parts += [state_of(value.__defaults__, seen)]
    elif isinstance(value, Slotted):
        parts += [getattr(value, "late", None), value.value]
    if isinstance(value, nn.Module) or type(value).__module__ in (__name__, "types", "collections"):
        parts += [(k, state_of(v, seen)) for k, v in getattr(value, "__dict__", {}).items()]
    return parts


def _written_parameter(m, x):
    with torch.no_grad():
        m.p.mul_(2)
    m.p.data.copy_(x[0])
    m.fc.weight.data.clamp_(-0.01, 0.01)


def _renormed(m, x):
    F.embedding(torch.tensor([0]), m.fc.weight, max_norm=0.01)


def _moved(m, x):
    m.p.data = x[0] * 2
    m.plain.set_(x)
    m.b.resize_(100)
    m.fc.bias.data = m.fc.bias.data.double()


def _replaced(m, x):
    m.fc.weight = nn.Parameter(torch.zeros(4, 4))
    del m.b
    m.b = 3
    m.register_buffer("new", torch.zeros(1))
    m.more = nn.ReLU()
    m.fc.register_forward_hook(lambda *_: None)


def _counted(m, x):
    m.n += 1
    m.text, m.late = "b", 1
    m.slotted.value, m.slotted.late = 2, 3
    m.space.a.append(1)
    m.space.b = 1
    m.user["b"] = 1


def _contained(m, x):
    m.cfg["last"] = x
    m.cfg["deep"]["list"][1].append(x)
    m.cfg["deep"]["tensor"] += 1
    m.ordered.move_to_end("a")
    m.count["a"] += 1
    m.seen.add(3)
    m.recent.append(4)
    m.settings.seen.append(x)
    m.array[1:] = 3


def _drawn(m, x):
    torch.rand(1, generator=m.generators[0])
    m.generators[1].random()
    m.generators[2].random()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)


def _hidden(m, x):
    m.b.numpy()[:] = 3
    m.plain.untyped_storage().fill_(1)


def _modes(m, x):
    m.train()
    m.p.requires_grad_(False)
    with torch.enable_grad():
        (m.fc.weight.sum()).backward()


def generators():
    return torch.random.get_rng_state().tolist(), repr(random.getstate()), repr(np.random.get_state())


@pytest.mark.parametrize(
    "change",
    [
        *(_written_parameter, _renormed, _moved, _replaced, _counted, _contained, _drawn, _hidden, _modes),
        lambda m, x: m.fc(x),
    ],
)
def test_it_is_put_back(change):
    model = Keeper().eval()
    model.forward = lambda x: change(model, x)
    before, numbers = state_of(model), generators()
    run_unchanged(model, (X,), {})
    assert state_of(model) == before
    assert generators() == numbers


def test_also_if_the_model_fails():
    model = Keeper()
    with pytest.raises(ZeroDivisionError), state_kept(model):
        model.cfg["deep"]["list"].clear()
        1 / 0  # noqa: B018
    assert model.cfg["deep"]["list"] == [1, [2]]


def test_outputs_are_not_put_back():
    def forward(m, x):
        m.b.add_(x.sum())
        m.kept.append(x + 1)
        return m.b, m.kept

    model = net(forward, b=torch.zeros(1))
    model.kept = []
    b, kept = run_unchanged(model, (torch.ones(1, 4),), {})
    assert b.tolist() == [4]
    assert torch.equal(kept[0], torch.full((1, 4), 2.0))
    assert (model.b.tolist(), model.kept) == ([0], [])


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls, self.cfg = [], {"n": 0}

    def forward(self, x):
        self.cfg["n"] += 1
        return x * self.cfg["n"]


class TestTwoCalls:
    def test_the_second_starts_from_where_the_first_ended(self):
        first, second = two_calls_unchanged(Counting(), (X,), {})
        assert torch.equal(first, X)
        assert torch.equal(second, 2 * X)

    def test_it_is_not_made_where_nothing_is_left(self):
        first, second = two_calls_unchanged(nn.Linear(4, 4), (X,), {})
        assert first is second

    def test_it_is_made_where_random_numbers_are_drawn(self):
        first, second = two_calls_unchanged(net(lambda m, x: torch.rand_like(x)), (X,), {})
        assert not torch.equal(first, second)


class Busy(nn.Module):
    """What tracing follows, done by a model with containers, hooks and buffers."""

    def __init__(self):
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.Tanh()
        self.register_buffer("b", torch.zeros(4))
        self.cfg, self.feats = {"last": None, "of": {"all": []}}, []
        self.act.register_forward_hook(lambda m, a, output: self.feats.append(output))

    def forward(self, x):
        y = self.act(self.fc(x))
        self.cfg["last"] = y
        self.cfg["of"]["all"].append(y)
        self.b += 1
        return y


class TestPipeline:
    """The law over everything that a user calls: after it, the model is what it was."""

    @pytest.mark.filterwarnings("ignore:The tensor attributes? .* assigned during export")
    @pytest.mark.parametrize("trace", ["symbolic", "export"])
    def test_the_model_is_what_it_was(self, trace):
        model = Busy().eval()
        before, numbers = state_of(model), generators()
        result = transform(model, X, backend="tensorrt", trace=trace)
        result.verify(X)
        assert generators() == numbers
        quantize(result, [X])
        assert state_of(model) == before
        torch.testing.assert_close(result.model(X), model.fc(X).tanh(), rtol=1e-6, atol=1e-6)

    def test_without_example_inputs(self):
        model = Busy().eval()
        before = state_of(model)
        transform(model, backend="tensorrt")
        assert state_of(model) == before
