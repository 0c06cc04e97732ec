"""Laws that hold of every model: random programs of the supported operators are rewritten and compared.

A program is a list of instructions on a pool of values, all of shape (2, 4, 6, 6). An instruction takes values from the
pool (0 is the newest) and appends its result, so values are used many times, before and after they are overwritten in
place, and through views. Computed in double precision: a tolerance of 1e-5 is then far above rounding, and far below
what a wrong rewrite does.
"""

import copy
import json
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from embedl_deploy import (
    Trace,
    apply_transformation_plan,
    get_transformation_plan,
    load_transformation_plan,
    transform,
)
from embedl_deploy.modules import symbolic_trace
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from support.agreement import assert_close
from support.small_patterns import PATTERNS

SHAPE = (2, 4, 6, 6)

#: Patterns that a run is drawn from.
PATTERN_LISTS = {"tensorrt": TENSORRT_PATTERNS, "small": PATTERNS}

#: The same examples in every run, so that a failure is somebody's change. ``./dev slow`` has three times as many.
STEADY = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def _augmented_add(a, b):
    a += b
    return a


def _augmented_mul(a, b):
    a *= b
    return a


def _squeeze(model, x, index, joined):
    """A squeeze-and-excitation gate, the flatten written in several ways."""
    pooled = model.pool_to_one(x)
    flat = [lambda: pooled.flatten(1), lambda: torch.flatten(pooled, 1), lambda: pooled.view(pooled.size(0), -1)]
    gate = torch.sigmoid(model.squeeze[index % 2](flat[joined % 3]()))
    return x * gate[:, :, None, None]


def _excite(model, x, index):
    """The same with convolutions over the 1×1 map."""
    return x * model.conv[index % 3](F.relu(model.conv1[index % 2](model.pool_to_one(x)))).sigmoid()


def _attend(model, x):
    y = model.norm[0](x).reshape(8, 6, 6)
    return model.attention(y, y, y, need_weights=False)[0].reshape(x.shape)


#: Every operation in its spellings: model, first value, second value, number that chooses among modules.
OPERATIONS: dict[str, list[Callable[[Any, torch.Tensor, torch.Tensor, int], torch.Tensor]]] = {
    "conv": [
        lambda m, a, b, i: m.conv1[i % 2](a),
        lambda m, a, b, i: m.conv3[i % 2](a),
        lambda m, a, b, i: m.conv[i % 3](a),
        lambda m, a, b, i: F.conv2d(a, m.conv1[i % 2].weight, m.conv1[0].bias),
        lambda m, a, b, i: F.conv2d(a, m.conv3[i % 2].weight, None, 1, 1),
        lambda m, a, b, i: m.valid[i % 2](m.zero_pad(a)),
        lambda m, a, b, i: m.valid[i % 2](F.pad(a, (1, 1, 1, 1))),
        lambda m, a, b, i: m.valid[i % 2](F.pad(F.pad(a, (0, 2)), (0, 0, 1, 1))),
    ],
    "batch norm": [
        lambda m, a, b, i: m.bn[i % 3](a),
        lambda m, a, b, i: F.batch_norm(a, m.bn[2].running_mean, m.bn[2].running_var, m.bn[i % 2].weight, None),
    ],
    "conv bn act": [
        lambda m, a, b, i: m.relu(m.bn[i % 3](m.conv1[i % 2](a))),
        lambda m, a, b, i: F.relu(m.bn[i % 3](m.conv3[i % 2](a)), inplace=True),
        lambda m, a, b, i: m.relu(m.bn[i % 3](m.conv1[i % 2](a)) + b),
        lambda m, a, b, i: m.relu_in_place(b + m.bn[i % 3](m.conv1[i % 2](a))),
        lambda m, a, b, i: m.block(a),
    ],
    "activation": [
        lambda m, a, b, i: m.relu(a),
        lambda m, a, b, i: m.relu_in_place(a),
        lambda m, a, b, i: m.activation[i % 5](a),
        lambda m, a, b, i: m.activation_in_place[i % 4](a),
        lambda m, a, b, i: F.relu(a),
        lambda m, a, b, i: F.relu(a, inplace=True),
        lambda m, a, b, i: F.hardswish(a, True),
        lambda m, a, b, i: torch.relu_(a),
        lambda m, a, b, i: a.relu(),
        lambda m, a, b, i: a.relu_(),
        lambda m, a, b, i: F.leaky_relu_(a, 0.2),
        lambda m, a, b, i: F.gelu(a, approximate="tanh"),
        lambda m, a, b, i: F.relu6(a),
        lambda m, a, b, i: torch.sigmoid(a),
    ],
    "add": [
        lambda m, a, b, i: a + b,
        lambda m, a, b, i: b + a,
        lambda m, a, b, i: torch.add(a, b),
        lambda m, a, b, i: torch.add(a, other=b),
        lambda m, a, b, i: torch.add(input=b, other=a),
        lambda m, a, b, i: torch.add(a, b, alpha=2),
        lambda m, a, b, i: a.add(b),
        lambda m, a, b, i: a.add_(b),
        lambda m, a, b, i: operator.iadd(b, a),
        lambda m, a, b, i: _augmented_add(a, b),
        lambda m, a, b, i: a + 1,
        lambda m, a, b, i: a.add_(1),
    ],
    "multiply": [
        lambda m, a, b, i: a * b.sigmoid(),
        lambda m, a, b, i: a * 0.5,
        lambda m, a, b, i: a.mul_(0.5),
        lambda m, a, b, i: _augmented_mul(a, torch.tanh(b)),
        lambda m, a, b, i: torch.maximum(a, b),
    ],
    "linear": [
        lambda m, a, b, i: m.linear[i % 2](a),
        lambda m, a, b, i: F.linear(a, m.linear[i % 2].weight),
        lambda m, a, b, i: F.relu(m.linear[i % 2](a)),
        lambda m, a, b, i: _squeeze(m, a, i, i),
        lambda m, a, b, i: _excite(m, a, i),
    ],
    "layer norm": [
        lambda m, a, b, i: m.norm[i % 2](a),
        lambda m, a, b, i: F.layer_norm(a, (6,), m.norm[0].weight, m.norm[0].bias),
        lambda m, a, b, i: _attend(m, a),
    ],
    "pool": [
        lambda m, a, b, i: m.pool(a),
        lambda m, a, b, i: F.adaptive_avg_pool2d(a, 6),
        lambda m, a, b, i: F.max_pool2d(a, 3, 1, 1),
        lambda m, a, b, i: F.avg_pool2d(a, 3, stride=1, padding=1),
    ],
    "view": [
        lambda m, a, b, i: a.view(a.shape),
        lambda m, a, b, i: a[...],
        lambda m, a, b, i: a.reshape(-1).view(2, 4, 6, 6),
        lambda m, a, b, i: a.contiguous(),
        lambda m, a, b, i: torch.cat([a[:, :2], b[:, 2:]], 1),
    ],
    "nothing": [
        lambda m, a, b, i: m.identity(a),
        lambda m, a, b, i: m.dropout(a),
        lambda m, a, b, i: F.dropout(a, 0.5, False),
    ],
}

NAMES = [(name, spelling) for name, forms in OPERATIONS.items() for spelling in range(len(forms))]
DROPOUT = ("nothing", 1)


class Program(nn.Module):
    """Runs instructions on a pool of values.

    Args:
        steps: (operation, spelling, first value, second value, module) of each instruction.
        outputs: Which values to return, counted from the newest.
        tied: Whether two convolutions share a weight, and two linear layers.
    """

    def __init__(self, steps: list[tuple[str, int, int, int, int]], outputs: list[int], tied: bool, seed: int) -> None:
        super().__init__()
        self.steps, self.outputs, self.tied = steps, outputs, tied
        self.conv1 = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(2))
        self.conv3 = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding="same", bias=False)])
        self.conv = nn.ModuleList([nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, bias=False)])
        self.valid = nn.ModuleList(nn.Conv2d(4, 4, 3) for _ in range(2))
        self.bn = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        self.linear = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.squeeze = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.norm = nn.ModuleList([nn.LayerNorm(6), nn.LayerNorm((4, 6, 6))])
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.relu, self.relu_in_place = nn.ReLU(), nn.ReLU(inplace=True)
        self.activation = nn.ModuleList([nn.ReLU6(), nn.SiLU(), nn.GELU(), nn.Hardswish(), nn.Sigmoid()])
        self.activation_in_place = nn.ModuleList(
            [nn.ReLU6(inplace=True), nn.SiLU(inplace=True), nn.Hardswish(inplace=True), nn.ELU(inplace=True)]
        )
        self.zero_pad = nn.ZeroPad2d(1)
        self.pool, self.pool_to_one = nn.AdaptiveAvgPool2d(6), nn.AdaptiveAvgPool2d(1)
        self.identity, self.dropout = nn.Identity(), nn.Dropout(0.5)
        if tied:
            self.conv1[1].weight = self.conv1[0].weight
            self.linear[1].weight = self.linear[0].weight
        self.double()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.4)
            for norm in (m for m in self.modules() if isinstance(m, nn.BatchNorm2d)):
                norm.running_mean.copy_(torch.rand(4, generator=generator, dtype=torch.double))
                norm.running_var.copy_(torch.rand(4, generator=generator, dtype=torch.double) + 0.5)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pool = [x, y]
        for name, spelling, first, second, index in self.steps:
            a, b = (pool[-1 - place % len(pool)] for place in (first, second))
            pool.append(OPERATIONS[name][spelling](self, a, b, index))
        return tuple(pool[-1 - place % len(pool)] for place in self.outputs)

    def __repr__(self) -> str:
        return f"Program({self.steps}, {self.outputs}, {self.tied})"

    @property
    def draws_masks(self) -> bool:
        """Whether a run in training mode is random."""
        return any((name, spelling) == DROPOUT for name, spelling, *_ in self.steps)


#: The newest value is the likeliest, so that chains come about.
_places = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4, 6])
_steps = st.builds(
    lambda name, first, second, index: (*name, first, second, index),
    st.sampled_from(NAMES),
    _places,
    _places,
    st.integers(0, 2),
)
programs = st.builds(
    Program,
    st.lists(_steps, min_size=1, max_size=12),
    st.lists(_places, min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 3),
)
pattern_lists = st.sampled_from(sorted(PATTERN_LISTS))


def inputs_of() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return tuple(torch.randn(SHAPE, generator=generator, dtype=torch.double) for _ in range(2))


def result_of(model: nn.Module) -> Any:
    """What a model gives, on copies of the inputs, and what it has made of them."""
    inputs = tuple(x.clone() for x in inputs_of())
    with torch.no_grad():
        return model(*inputs), inputs


def assert_agree(model: nn.Module, other: nn.Module) -> None:
    """Outputs agree, and so does what is left in the inputs, which a model may write into."""
    wanted, wanted_inputs = result_of(model)
    got, got_inputs = result_of(other)
    assert_close((tuple(got), got_inputs), (tuple(wanted), wanted_inputs))


def statistics(model: nn.Module) -> dict[Any, dict[str, torch.Tensor]]:
    """Running statistics of every live batch norm, by what its weight holds."""
    norms = [m for m in model.modules() if type(m) is nn.BatchNorm2d]
    return {tuple(m.weight.tolist()): dict(m.named_buffers()) for m in norms}


@STEADY
@given(programs, pattern_lists, st.booleans())
def test_outputs_are_kept_in_evaluation_mode(program, patterns, shapes):
    model = program.eval()
    result = transform(model, inputs_of() if shapes else None, patterns=PATTERN_LISTS[patterns], strict=True)
    assert_agree(model, result.model)
    assert result.verify(*inputs_of()).max_abs < 1e-5


@STEADY
@given(programs, pattern_lists, st.booleans())
def test_outputs_and_running_statistics_are_kept_in_training_mode(program, patterns, shapes):
    if program.draws_masks:
        program.steps = [step for step in program.steps if step[:2] != DROPOUT]
    model = copy.deepcopy(program).train()
    result = transform(model, inputs_of() if shapes else None, patterns=PATTERN_LISTS[patterns], strict=True)
    assert_agree(model, result.model)
    wanted, got = statistics(model), statistics(result.model)
    for weight in got.keys() & wanted.keys():
        assert_close(got[weight], wanted[weight])


@STEADY
@given(programs, pattern_lists, st.booleans())
def test_a_traced_graph_is_taken_like_the_module(program, patterns, shapes):
    model = program.eval()
    args = inputs_of() if shapes else None
    given_graph = transform(symbolic_trace(model), args, patterns=PATTERN_LISTS[patterns], strict=True)
    given_module = transform(model, args, patterns=PATTERN_LISTS[patterns], strict=True)
    assert_agree(model, given_graph.model)
    assert given_graph.report["applied_count"] == given_module.report["applied_count"]


@settings(STEADY, max_examples=STEADY.max_examples // 4)
@given(programs, pattern_lists)
def test_outputs_are_kept_through_export(program, patterns):
    model = program.eval()
    result = transform(model, inputs_of(), patterns=PATTERN_LISTS[patterns], strict=True, trace=Trace.EXPORT)
    assert_agree(model, result.model)


@STEADY
@given(programs, pattern_lists, st.booleans())
def test_the_users_model_and_inputs_are_bit_identical_afterwards(program, patterns, training):
    model = program.train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = inputs_of()
    transform(model, inputs, patterns=PATTERN_LISTS[patterns], strict=True).verify(*inputs)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(x, y) for x, y in zip(inputs, inputs_of(), strict=True))
    assert all(module.training is training for module in model.modules())


@STEADY
@given(programs, pattern_lists, st.booleans())
def test_a_second_run_applies_nothing(program, patterns, shapes):
    args = inputs_of() if shapes else None
    chosen = PATTERN_LISTS[patterns]
    first = transform(program.eval(), args, patterns=chosen, strict=True)
    second = transform(first.model, args, patterns=chosen, strict=True)
    # A rewrite moves an in-place write down to its place, and may so make room for what the write stood in the way of.
    blocked = [refusal for refusal in first.report.declined if "in place" in refusal.reason]
    assert second.report["applied_count"] <= len(blocked), second.report["applied"]
    if second.report["applied_count"]:
        assert_agree(program, second.model)
        return
    assert [n.name for n in second.model.graph.nodes] == [n.name for n in first.model.graph.nodes]


@STEADY
@given(programs, pattern_lists, st.booleans())
def test_a_plan_survives_json(program, patterns, shapes):
    args, chosen = inputs_of() if shapes else None, PATTERN_LISTS[patterns]
    text = get_transformation_plan(program.eval(), args, patterns=chosen).to_json()
    assert load_transformation_plan(text, program, args, patterns=chosen).to_json() == text


@STEADY
@given(programs, pattern_lists, st.booleans(), st.data())
def test_a_plan_with_matches_switched_off_keeps_outputs_and_survives_json(program, patterns, shapes, data):
    model, args, chosen = program.eval(), inputs_of() if shapes else None, PATTERN_LISTS[patterns]
    plan = get_transformation_plan(model, args, patterns=chosen)
    for match in plan:
        if match.apply and data.draw(st.booleans(), label=repr(match)):
            match.apply = False
    switches = [match.apply for match in plan]
    text = plan.to_json()
    loaded = load_transformation_plan(text, model, args, patterns=chosen)
    assert [match.apply for match in loaded] == switches
    assert loaded.to_json() == text
    results = [apply_transformation_plan(each, strict=True) for each in (plan, loaded)]
    for result in results:
        assert_agree(model, result.model)
    assert str(results[0].model.graph) == str(results[1].model.graph)


@STEADY
@given(programs, pattern_lists, st.data())
def test_disabling_lets_others_take_over_and_keeps_outputs(program, patterns, data):
    model = program.eval()
    plan = get_transformation_plan(model, patterns=PATTERN_LISTS[patterns])
    places = [(node, name) for node, row in plan.matches.items() for name in row]
    for node, name in data.draw(st.lists(st.sampled_from(places), max_size=3)) if places else ():
        plan.disable(node, name)
    text = plan.to_json()
    assert json.loads(text)["patterns"] == [pattern.name for pattern in plan.patterns]
    assert_agree(model, apply_transformation_plan(plan, strict=True).model)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_spelling_keeps_outputs_by_itself_and_after_a_convolution(name):
    """So that no instruction is covered by luck alone."""
    for spelling in range(len(OPERATIONS[name])):
        for before in ([], [("conv", 0, 0, 0, 0)]):
            model = Program([*before, (name, spelling, 0, 1, 1)], [0, 1], tied=False, seed=0).eval()
            assert_agree(model, transform(model, inputs_of(), patterns=TENSORRT_PATTERNS, strict=True).model)


#: Programs that a rewrite once got wrong: (operation, spelling, first, second, module), and which values are returned.
_FOUND: dict[str, tuple[list[tuple[str, int, int, int, int]], list[int]]] = {
    "augmented assignment is a write": ([("view", 0, 1, 0, 0), ("add", 9, 0, 1, 0)], [0, 2]),
    "augmented multiplication is a write": ([("multiply", 3, 0, 1, 0)], [0]),
    "an identity pool keeps the model's input from a write": (
        [("pool", 0, 0, 0, 0), ("activation", 1, 0, 0, 0)],
        [0],
    ),
    "an identity pool keeps what is viewed from a write": (
        [("conv", 0, 0, 0, 0), ("view", 0, 0, 0, 0), ("pool", 0, 0, 0, 0), ("activation", 1, 0, 0, 0)],
        [0, 3],
    ),
    "batches are counted once": ([("batch norm", 0, 0, 0, 0)], [0]),
    "an exported graph reads tensors that nothing uses": ([("conv", 3, 0, 0, 1)], [0]),
}


@pytest.mark.parametrize("trace", [Trace.SYMBOLIC, Trace.EXPORT])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", _FOUND)
def test_programs_that_were_once_rewritten_wrongly(name, training, trace):
    steps, outputs = _FOUND[name]
    model = Program(steps, outputs, tied=False, seed=0).train(training)
    for patterns in PATTERN_LISTS.values():
        reference = copy.deepcopy(model)
        result = transform(model, inputs_of(), patterns=patterns, strict=True, trace=trace)
        assert_agree(reference, result.model)
        wanted, got = statistics(reference), statistics(result.model)
        for weight in got.keys() & wanted.keys():
            assert_close(got[weight], wanted[weight])


def test_an_out_argument_is_a_write():
    class Out(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.other = nn.Conv2d(4, 4, 1).double(), nn.Conv2d(4, 4, 1).double()

        def forward(self, x, y):
            z = self.conv(x)
            w = self.other(z)
            torch.mul(x, y, out=z)
            return F.relu(w) + z, F.relu(z)

    model = Out().eval()
    for patterns in PATTERN_LISTS.values():
        assert_agree(model, transform(model, inputs_of(), patterns=patterns, strict=True).model)
