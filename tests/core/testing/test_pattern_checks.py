"""Each check of a pattern fails where it should: a good pattern is spoilt in one thing at a time."""

import copy

import pytest
import torch
from torch import nn

from core.testing.small_backend import (
    Again,
    Around,
    Block,
    BlockPattern,
    WrongInEvaluation,
    block,
    make_backend,
    with_graft,
)
from embedl_deploy.modules import FusedModule, with_parameters
from embedl_deploy.patterns import Example, Pattern, QDQPoint, get_module
from embedl_deploy.testing import PATTERN_CHECKS, ConformanceFailure, DoesNotApply
from embedl_deploy.testing.item import advice
from embedl_deploy.testing.subjects import PatternSubject
from support.squeeze_excite import NestedSEPattern, PlainSEPattern

X = (torch.ones(2, 4, 6, 6).cumsum(-1) / 6,)
CHECKS = {check.id: check for check in PATTERN_CHECKS}


class NoExamples(BlockPattern):
    def examples(self):
        return []


class NoNearMisses(BlockPattern):
    def near_misses(self):
        return ()


class TwoBlocks(BlockPattern):
    def examples(self):
        return [Example(nn.Sequential(*block(nn.ReLU()), *block(nn.ReLU())), X)]


class TakesTooMuch(BlockPattern):
    def near_misses(self):
        return [Example(nn.Sequential(*block(nn.ReLU())), X, "three channels")]


class Dead(BlockPattern):
    """Comes after BlockPattern, which takes all of its nodes."""


def draw(*parts):
    torch.rand(1)
    return Block(*parts)


class Draws(BlockPattern):
    graft = draw


class WrongInTraining(Block):
    def forward(self, x):
        return super().forward(x) + (0.01 if self.training else 0.0)


class WrongForDepthwise(Block):
    """Right for every example; the pattern's tree takes depthwise convolutions, too."""

    def forward(self, x):
        return super().forward(x) * (1.0 if self.conv.groups == 1 else 1.01)


class WrongForBatchOfOne(Block):
    def forward(self, x):
        return super().forward(x) * (1.0 if x.shape[0] > 1 else 1.01)


def module_of_a_call(node):
    return node.op == "call_module" and isinstance(get_module(node), nn.BatchNorm2d)


class ModulesOnly(BlockPattern):
    """Does not see what torch.export makes of the block."""

    tree = (nn.Conv2d, module_of_a_call, nn.ReLU)


class WrongForCalls(BlockPattern):
    """Right for modules; torch.export gives calls of functions."""

    def replace(self, pattern_match):
        called = pattern_match.nodes[0].op == "call_function"
        nodes = super().replace(pattern_match)
        if called:
            get_module(nodes[-1]).act = nn.Tanh()
        return nodes


class CountsTwice(Block):
    def forward(self, x):
        self.bn(self.conv(x))
        return super().forward(x)


class Detached(Block):
    def forward(self, x):
        return super().forward(x.detach())


class Gain(Block):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return super().forward(x) * self.gain


def copied(*parts):
    return Block(*copy.deepcopy(parts))


class Copies(BlockPattern):
    graft = copied


class NotCopied(Block):
    def __deepcopy__(self, memo):
        return self


class Remembers(Block):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.total = self.conv.weight.sum().item()

    def forward(self, x):
        return super().forward(x) + (self.total - self.conv.weight.detach().sum())


class Branches(Block):
    def forward(self, x):
        y = super().forward(x)
        return y if float(x.detach().sum()) < 1e9 else y * 0


class ManyPoints(BlockPattern):
    graft = staticmethod(lambda *parts: Block(*parts))  # of a class itself it is known when the plugin loads
    qdq_points = frozenset({QDQPoint.INPUT, QDQPoint.RESIDUAL_INPUT})


class NoPlace(Block):
    inputs_to_quantize = frozenset()


class NoPlacePattern(BlockPattern):
    graft = staticmethod(lambda *parts: NoPlace(*parts))


class HiddenWeight(FusedModule):
    inputs_to_quantize = frozenset({0})

    def __init__(self, *parts):
        super().__init__()
        self.conv, self.bn, self.act = parts

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class HiddenTable(Block):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.register_buffer("table", torch.eye(6))

    def forward(self, x):
        return super().forward(x) @ self.table


class ToldWeight(HiddenWeight):
    why_not_quantized = "the kernel takes weights in float"


class FloatWeight(Block):
    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class DroppedWeight(FloatWeight):
    def forward(self, x):
        self.weight_fake_quant(self.conv.weight)
        return super().forward(x)


class NotFinite(Block):
    def forward(self, x):
        return super().forward(x) / (0.0 if self.weight_fake_quant.enabled else 1.0)


#: The check, the pattern, what is said to be found.
SPOILT = [
    ("declares-examples", NoExamples, "examples() gives none"),
    ("declares-near-misses", NoNearMisses, "near_misses() gives none"),
    ("matches-once", TwoBlocks, "2 matches (_0 → _1 → _2; _3 → _4 → _5)"),
    ("declines-near-misses", TakesTooMuch, "a match (_0 → _1 → _2)"),
    ("is-reached", Dead, "example 1 (a block): BlockPattern applied"),
    ("model-untouched", Draws, "changed: the state of torch's random number generator"),
    ("numbers-evaluation", with_graft(WrongInEvaluation), "outputs, tensor 0: max |Δ| ="),
    ("numbers-training", with_graft(WrongInTraining), "outputs, tensor 0: max |Δ| ="),
    ("numbers-training", with_graft(CountsTwice), "1.running_mean after one batch, tensor 0: max |Δ| ="),
    ("variants", with_graft(WrongForDepthwise), "where:    example 1 (a block), with 0: groups=4"),
    ("variants", with_graft(WrongForBatchOfOne), "where:    example 1 (a block), with a batch of 1"),
    ("exported-graphs", WrongForCalls, "where:    example 1 (a block), captured by torch.export"),
    (
        "exported-graphs",
        ModulesOnly,
        "no match: conv2d: ModulesOnly does not match: conv2d is followed by batch_norm (BatchNorm2d), expected",
    ),
    ("gradients", with_graft(Detached), "no gradient reaches input 0"),
    ("parameters", with_graft(Gain), "0.gain is a new parameter"),
    ("sharing", Copies, "two models with the same weights: "),
    ("idempotent", Again, "after 1 rewrites, 1 more: Again at _0"),
    ("deep-copy", with_graft(NotCopied), "a deep copy of the result shares 0.conv.weight, "),
    ("state-dict", with_graft(Remembers), "outputs with the loaded state, tensor 0: max |Δ| ="),
    ("onnx", with_graft(Branches), "cannot be exported to ONNX"),
    ("qdq-points", ManyPoints, "qdq_points names RESIDUAL_INPUT, but Block is called with 1 arguments"),
    ("qdq-points", NoPlacePattern, "names INPUT, argument 0, but NoPlace declares no such input"),
    (
        "weights-have-places",
        with_graft(HiddenWeight),
        "Conv2d at conv of 0 (HiddenWeight) has no quantization point",
    ),
    (
        "weights-have-places",
        with_graft(HiddenTable),
        "matmul by table of 0 (HiddenTable) has no quantization point",
    ),
    ("stubs-used", with_graft(FloatWeight), "forward never calls weight_fake_quant of 0 (FloatWeight)"),
    (
        "stubs-used",
        with_graft(DroppedWeight),
        "forward calls weight_fake_quant of 0 (DroppedWeight) and does not use what it returns",
    ),
    ("quantized", with_graft(NotFinite), "the quantized model gives numbers that are not finite"),
]


def failures(pattern, *, leave_out=()):
    """What fails of all checks, by id."""
    first = (BlockPattern(),) if isinstance(pattern, Dead) else ()
    subject = PatternSubject(make_backend(*first, pattern), pattern)
    found = {}
    for check in PATTERN_CHECKS:
        if check.id not in leave_out:
            try:
                check.run(subject)
            except DoesNotApply:
                continue
            except ConformanceFailure as failure:
                found[check.id] = advice(check, subject, failure)
    return found


@pytest.mark.parametrize(("check", "pattern", "found"), SPOILT, ids=[f"{c}, {p.__name__}" for c, p, _ in SPOILT])
def test_exactly_this_check_fails(check, pattern, found):
    # These take longer than all other checks together, and see what others see as well.
    others = {"onnx", "variants", "exported-graphs"} - {check}
    ((failed, text),) = failures(pattern(), leave_out=others).items()
    assert failed == check
    assert text.startswith(f"Backend 'acme' fails a check: {pattern.__name__} {CHECKS[check].title}.")
    assert found in text
    assert f"  do:       {CHECKS[check].advice}" in text
    assert f"  why:      {CHECKS[check].why}" in text


def test_the_good_pattern_passes_every_check():
    for check in PATTERN_CHECKS:
        check.run(PatternSubject(make_backend(BlockPattern()), BlockPattern()))


def test_how_much_was_tried_is_told():
    subject = PatternSubject(make_backend(BlockPattern()), BlockPattern())
    # Three surroundings; groups of 4 and 2, stride, dilation, bias, padding of two kinds, circular padding, eps,
    # affine, in place: all but other activations and layers that are left out, which the tree does not take.
    assert CHECKS["variants"].run(subject) == "applies to 14 of 21 variations of 1 example(s)"
    assert CHECKS["exported-graphs"].run(subject) == "applies to 1 of 1 example(s) as torch.export gives them"


class OwnPattern(Again):
    """Takes what torch.export leaves nothing of."""

    tree = (Around,)

    def examples(self):
        return [Example(nn.Sequential(Around(nn.ReLU())), X)]


def test_what_torch_export_leaves_nothing_of_is_not_asked_for():
    subject = PatternSubject(make_backend(OwnPattern()), OwnPattern())
    assert CHECKS["exported-graphs"].run(subject) == (
        "applies to 0 of 1 example(s) as torch.export gives them (torch.export takes Around apart)"
    )


def test_every_check_is_seen_to_fail():
    assert {check for check, _, _ in SPOILT} == set(CHECKS)


@pytest.mark.parametrize(
    ("examples", "found"),
    [
        ([3], "example 1 is 3"),
        ([Example(nn.ReLU(), (torch.ones(1, 4),))], "its inputs are (1, 4)"),
        ([Example(nn.ReLU(), (torch.zeros(2, 4),))], "its outputs are all the same number, or not finite"),
        ([Example(nn.ReLU(), (torch.tensor([[1.0], [torch.inf]]),))], "all the same number, or not finite"),
    ],
    ids=["no example", "one sample", "zeros", "infinite"],
)
def test_examples_that_show_nothing(examples, found):
    pattern = type("Showing", (BlockPattern,), {"examples": lambda self: copy.deepcopy(examples)})()
    with pytest.raises(ConformanceFailure) as failure:
        CHECKS["declares-examples"].run(PatternSubject(make_backend(pattern), pattern))
    assert found in failure.value.found


def test_examples_are_made_anew():
    kept = BlockPattern().examples()
    pattern = type("Keeping", (BlockPattern,), {"examples": lambda self: kept})()
    with pytest.raises(ConformanceFailure, match="the same module twice"):
        CHECKS["declares-examples"].run(PatternSubject(make_backend(pattern), pattern))


def test_a_near_miss_says_why():
    pattern = type("Silent", (BlockPattern,), {"near_misses": lambda self: [Example(nn.ReLU(), X)]})()
    with pytest.raises(ConformanceFailure, match="its note is empty"):
        CHECKS["declares-near-misses"].run(PatternSubject(make_backend(pattern), pattern))


def test_folded_weights_are_not_the_original_parameters():
    def doubled(conv, bn, act):
        return Block(with_parameters(conv, conv.weight * 2, conv.bias), bn, act)

    failed = failures(type("Folds", (BlockPattern,), {"graft": doubled})(), leave_out=("onnx", "variants"))
    assert "no parameter of the result has the values of 0.weight" in failed["parameters"]


class Halves(FusedModule):
    """A product in two halves."""

    def __init__(self, linear, keep=(0, 1), scale=1.0):
        super().__init__()
        rows = linear.out_features // 2
        parts = [
            (linear.weight[i * rows : (i + 1) * rows] * scale, linear.bias[i * rows : (i + 1) * rows]) for i in (0, 1)
        ]
        self.weights = nn.ParameterList([nn.Parameter(parts[i][0].detach()) for i in keep])
        self.biases = nn.ParameterList([nn.Parameter(part[1].detach()) for part in parts])

    def forward(self, x):
        weights = [self.weights[min(i, len(self.weights) - 1)] for i in (0, 1)]
        return torch.cat([nn.functional.linear(x, w, b) for w, b in zip(weights, self.biases, strict=True)], -1)


class CutPattern(Pattern):
    tree = (nn.Linear,)
    graft = Halves

    def examples(self):
        return [Example(nn.Sequential(nn.Linear(4, 6)), (torch.randn(2, 4),))]

    def near_misses(self):
        return [Example(nn.Sequential(nn.ReLU()), (torch.randn(2, 4),), "no product")]


@pytest.mark.parametrize(
    ("graft", "wrong"),
    [
        (Halves, None),
        (lambda linear: Halves(linear, keep=(0,)), "no parameter of the result has the values of 0.weight"),
        (lambda linear: Halves(linear, scale=2.0), "no parameter of the result has the values of 0.weight"),
    ],
    ids=["cut", "half is missing", "changed"],
)
def test_a_parameter_may_be_cut_into_rows(graft, wrong):
    pattern = type("Cut", (CutPattern,), {"graft": staticmethod(graft)})()
    check = CHECKS["parameters"]
    if wrong is None:
        check.run(PatternSubject(make_backend(pattern), pattern))
    else:
        with pytest.raises(ConformanceFailure, match=wrong):
            check.run(PatternSubject(make_backend(pattern), pattern))


def test_dropout_is_left_out_of_comparisons_in_training_mode():
    class Drops(BlockPattern):
        def examples(self):
            return [Example(nn.Sequential(*block(nn.ReLU()), nn.Dropout(0.5)), X)]

    for check in ("numbers-training", "gradients"):
        with pytest.raises(DoesNotApply, match="dropout"):
            CHECKS[check].run(PatternSubject(make_backend(Drops()), Drops()))


@pytest.mark.parametrize("pattern", [with_graft(ToldWeight), NestedSEPattern, PlainSEPattern])
def test_modules_with_several_weights_or_a_reason_pass(pattern):
    # How many weights there are, other layers' settings do not change.
    assert failures(pattern(), leave_out=("onnx", "variants")) == {}
