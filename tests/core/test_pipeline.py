"""The pipeline as a user sees it: the invariants of a transformation."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import (
    Trace,
    apply_transformation_plan,
    get_transformation_plan,
    load_transformation_plan,
    transform,
)
from embedl_deploy.errors import CaptureError, InputError, PatternError, PlanError
from embedl_deploy.patterns import Pattern, QDQPoint
from support.small_patterns import PATTERNS, ConvBNActPattern, ConvPattern, FusedChain


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.bn(self.conv(x)))


class Net(nn.Module):
    """Two calls of one block, a residual, a shared weight, an output in the middle."""

    def __init__(self):
        super().__init__()
        self.block, self.head, self.tail = Block(), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.tail.weight = self.head.weight

    def forward(self, x):
        middle = self.block(self.block(x))
        return self.tail(F.relu(self.head(middle)) + middle), middle


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def state_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize(
    "keep", [pickle.dumps, copy.deepcopy, lambda v: torch.save(v, io.BytesIO())], ids=["pickle", "copy", "torch.save"]
)
@pytest.mark.parametrize(
    "part", [lambda r: r, lambda r: r.report, lambda r: r.report.plan], ids=["result", "report", "plan"]
)
def test_what_cannot_be_kept_says_what_can(keep, part):
    result = transform(nn.Sequential(nn.Linear(2, 2)), patterns=[])
    with pytest.raises(InputError, match=r"cannot be pickled or copied.*torch\.save\(result\.model, path\).*to_json"):
        keep(part(result))


@pytest.mark.parametrize(
    ("inputs", "call"),
    [
        (lambda x, y: (x, y), r"one tuple.*verify\(x, mask\)\."),
        (lambda x, y: [x, y], r"one list.*verify\(x, mask\)\."),
        (lambda x, y: {"x": x, "mask": y}, r"one dict.*verify\(x=x, mask=mask\)\."),
    ],
    ids=["tuple", "list", "dict"],
)
def test_inputs_in_one_container_are_to_be_passed_one_by_one(inputs, call):
    class Two(nn.Module):
        def forward(self, x, mask):
            return x * mask

    class One(nn.Module):
        def forward(self, pair):
            return pair[0] * pair[1]

    x, y = torch.ones(2), torch.zeros(2)
    with pytest.raises(InputError, match=call):
        transform(Two(), patterns=[]).verify(inputs(x, y))
    assert transform(One(), ((x, y),), patterns=[]).verify((x, y)).max_abs == 0


class TestUserModelIsUntouched:
    @pytest.mark.parametrize("train", [False, True])
    def test_parameters_buffers_mode_hooks_rng(self, net, train):
        net.train(train)
        calls = []
        net.block.conv.register_forward_hook(lambda module, args, output: calls.append(module))
        net.marker = object()
        before, rng, attributes = state_of(net), torch.get_rng_state(), set(vars(net))
        modules = {name: (type(m), m.training, list(m._forward_hooks)) for name, m in net.named_modules()}
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        result = transform(net, x, patterns=PATTERNS)
        result.verify(x)
        assert torch.equal(torch.get_rng_state(), rng)
        after = state_of(net)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[k], after[k]) for k in before)
        assert set(vars(net)) == attributes
        assert {n: (type(m), m.training, list(m._forward_hooks)) for n, m in net.named_modules()} == modules

    def test_result_shares_no_memory_with_it(self, net):
        result = transform(net, patterns=PATTERNS)
        theirs = {p.data_ptr() for p in net.parameters()}
        assert not theirs & {p.data_ptr() for p in result.model.parameters()}

    def test_inputs_are_not_overwritten_by_verify(self):
        class InPlace(nn.Module):
            def forward(self, x):
                return x.relu_()

        x = torch.randn(3)
        kept = x.clone()
        transform(InPlace(), patterns=PATTERNS).verify(x)
        assert torch.equal(x, kept)

    def test_python_state_that_tracing_changes(self):
        class Counting(nn.Module):
            calls = 0

            def forward(self, x):
                self.calls += 1
                return x + 1

        model = Counting()
        transform(model, patterns=[])
        assert model.calls == 0


class TestOutputsAreKept:
    def test_eval(self, net):
        result = transform(net, patterns=PATTERNS)
        assert result.verify(torch.randn(2, 4, 8, 8)) == (0, 0)

    def test_train_with_live_batch_norm(self, net):
        net.train()
        result = transform(net, patterns=PATTERNS)
        reference = copy.deepcopy(net)
        x = torch.randn(2, 4, 8, 8)
        for a, b in zip(reference(x), result.model(x), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        fused = next(m for m in result.model.modules() if isinstance(m, nn.BatchNorm2d))
        assert torch.equal(fused.running_mean, reference.block.bn.running_mean)

    def test_double_precision(self, net):
        assert transform(net.double(), patterns=PATTERNS).verify(torch.randn(2, 4, 8, 8).double()).max_rel == 0

    def test_training_flag_can_be_switched(self, net):
        model = transform(net, patterns=PATTERNS).model
        assert not any(m.training for m in model.modules())
        model.train()
        assert all(m.training for m in model.modules())


class TestSharing:
    def test_block_called_twice_is_one_module(self, net):
        result = transform(net, patterns=[ConvBNActPattern()])
        targets = [n.target for n in result.model.graph.nodes if n.op == "call_module" and "block" in n.target]
        assert len(targets) == 2
        assert len(set(targets)) == 1
        assert isinstance(result.model.get_submodule(targets[0]), FusedChain)

    def test_tied_weights_stay_tied(self, net):
        model = transform(net, patterns=PATTERNS).model
        ones = [p for p in model.parameters() if p.shape == (4, 4, 1, 1)]
        assert len(ones) == 1  # parameters() gives each tensor once

    def test_functional_use_of_a_tied_weight(self):
        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 1, bias=False)

            def forward(self, x):
                return F.conv2d(F.relu(self.conv(x)), self.conv.weight)

        result = transform(Tied().eval(), patterns=PATTERNS)
        assert result.report["applied_count"] == 2
        assert len(list(result.model.parameters())) == 1
        assert result.verify(torch.randn(1, 4, 5, 5)).max_abs == 0


class TestSecondRun:
    def test_changes_nothing(self, net):
        first = transform(net, patterns=PATTERNS)
        second = transform(first.model, patterns=PATTERNS)
        assert second.report["applied_count"] == 0
        assert [n.name for n in second.model.graph.nodes] == [n.name for n in first.model.graph.nodes]


class TestInPlaceOperations:
    """A rewrite must not move a read past a write."""

    @pytest.mark.parametrize(
        "forward",
        [
            lambda self, x: (lambda y: self.c(y).relu_() + y)(x * 1),
            lambda self, x: (lambda y: F.relu(y, inplace=True) + y)(self.c(x)),
            lambda self, x: (lambda y: (y.add_(1), F.relu(self.c(y)), y)[1:])(x * 1),
            lambda self, x: (lambda y: (lambda c: (y.mul_(2), F.relu(c) + y))(self.c(y)))(x * 1),
            lambda self, x: (lambda y, v: (self.c(y), v.mul_(3), F.relu(self.d(y)))[::2])(
                *(lambda y: (y, y.view(-1)))(x * 1)
            ),
        ],
    )
    def test_outputs_agree(self, forward):
        class InPlace(nn.Module):
            def __init__(self):
                super().__init__()
                self.c, self.d = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        InPlace.forward = forward
        result = transform(InPlace().eval(), patterns=PATTERNS)
        assert result.verify(torch.randn(2, 4, 3, 3)).max_abs == 0

    def test_hazard_is_named(self):
        class InPlace(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 1)

            def forward(self, x):
                y = x * 1
                z = self.conv(y)
                y.add_(1)
                return F.relu(z), y

        plan = get_transformation_plan(InPlace(), patterns=[ConvBNActPattern()])
        assert plan.why_not("conv") == [
            "conv: ConvBNActPattern declined: add_ changes mul in place between conv and the end"
        ]


class TestCapture:
    def test_untraceable_names_line_module_and_advice(self):
        class Inner(nn.Module):
            def forward(self, x):
                if x.sum() > 0:  # the culprit
                    return x
                return -x

        class Outer(nn.Module):
            def __init__(self):
                super().__init__()
                self.stage = nn.Sequential(nn.Identity(), Inner())

            def forward(self, x):
                return self.stage(x)

        with pytest.raises(CaptureError) as caught:
            transform(Outer(), patterns=PATTERNS)
        message = str(caught.value)
        assert caught.value.module_path == "stage.1"
        assert "'stage.1' (Inner)" in message
        assert "test_pipeline.py" in message
        assert "if x.sum() > 0:  # the culprit" in message
        assert "torch.export" in message
        assert caught.value.source.rpartition(":")[0] == __file__

    def test_falls_back_to_export_with_inputs(self):
        class Steered(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(4, 4, 1)

            def forward(self, x):
                if any(size > 100 for size in x.shape):  # decided by the example
                    return x
                return F.relu(self.conv(x))

        x = torch.randn(1, 4, 5, 5)
        result = transform(Steered().eval(), x, patterns=PATTERNS)
        assert result.report["capture"] == "export"
        assert "symbolic tracing failed at" in result.report["notes"][0]
        assert result.report["applied_count"] == 1
        assert result.verify(x).max_abs == 0
        with pytest.raises(CaptureError):
            transform(Steered().eval(), x, patterns=PATTERNS, trace=Trace.SYMBOLIC)

    @pytest.mark.parametrize("trace", ["symbolic", "export"])
    def test_inputs_that_do_not_fit_are_that_whatever_captures(self, net, trace):
        with pytest.raises(InputError, match=r"to have 4 channels, but got 3.*Pass inputs"):
            transform(net, torch.randn(2, 3, 8, 8), patterns=PATTERNS, trace=trace)

    def test_both_ways_fail(self):
        class Hopeless(nn.Module):
            def forward(self, x):
                raise RuntimeError("not today")

        with pytest.raises(CaptureError, match=r"(?s)not today.*torch.export was tried as well"):
            transform(Hopeless(), torch.randn(3), patterns=PATTERNS)

    @pytest.mark.parametrize("form", ["module", "symbolic graph", "export program", "export module"])
    def test_forms_of_a_model(self, net, form):
        x = torch.randn(2, 4, 8, 8)
        given = {
            "module": lambda: net,
            "symbolic graph": lambda: torch.fx.symbolic_trace(net),
            "export program": lambda: torch.export.export(net, (x,)),
            "export module": lambda: torch.export.export(net, (x,)).module(),
        }[form]()
        result = transform(given, patterns=PATTERNS)
        assert result.report["applied_count"] == 4
        assert result.verify(x).max_abs == 0

    def test_torchs_own_account_of_a_failure_is_not_printed_as_well(self, capfd):
        class Branching(nn.Module):
            def forward(self, x):
                return x if x.sum() > 0 else -x

        with pytest.raises(CaptureError, match=r"(?s)at .*if x\.sum\(\) > 0.*torch.export was tried as well"):
            transform(Branching(), torch.randn(3), patterns=PATTERNS)
        assert capfd.readouterr() == ("", "")

    def test_trace_is_also_taken_by_its_value(self, net):
        assert transform(net, torch.randn(2, 4, 8, 8), patterns=PATTERNS, trace="export").report["capture"] == "export"

    def test_trace_export_needs_inputs(self, net):
        with pytest.raises(InputError, match="needs example inputs"):
            transform(net, patterns=PATTERNS, trace=Trace.EXPORT)

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch.compile's own import
    def test_compiled_module_is_unwrapped(self, net):
        result = transform(torch.compile(net), patterns=PATTERNS)
        assert result.report["applied_count"] == 4

    def test_data_parallel_is_refused(self, net):
        with pytest.raises(CaptureError, match=r"model\.module"):
            transform(nn.DataParallel(net), patterns=PATTERNS)

    def test_scripted_module_is_refused(self):
        class Scripted(torch.jit.ScriptModule):
            pass

        with pytest.raises(CaptureError, match="TorchScript"):
            transform(Scripted(), patterns=PATTERNS)

    def test_model_that_cannot_be_copied(self):
        class Locked(nn.Module):
            def __deepcopy__(self, memo):
                raise TypeError("cannot pickle '_thread.lock' object")

        with pytest.raises(CaptureError, match="cannot be deep-copied"):
            transform(Locked(), patterns=PATTERNS)

    def test_buffer_written_while_tracing_is_noted_and_put_back(self):
        class Counting(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("count", torch.zeros(2))

            def forward(self, x):
                self.count.add_(1)
                return x + 1

        model = Counting()
        result = transform(model, patterns=PATTERNS)
        assert result.report["notes"] == ["the model's forward writes into 'count'; that is not part of the graph"]
        assert torch.equal(model.count, torch.zeros(2))

    @pytest.mark.parametrize(
        ("model", "message"),
        [(Net, "pass an instance"), ("net", "expected an nn.Module"), (None, "expected an nn.Module")],
    )
    def test_not_a_model(self, model, message):
        with pytest.raises(InputError, match=message):
            transform(model, patterns=PATTERNS)


class TestInputs:
    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            (torch.randn(2, 3, 8, 8), None, r"does not accept args at node 'block_conv'.*float32\[2, 3, 8, 8\]"),
            ((torch.randn(2, 4, 8, 8),) * 2, None, r"takes the inputs \(x\)"),
            ((), None, "missing: x"),
            (None, {"y": torch.randn(2)}, "unknown or given twice: y"),
            ({"x": torch.randn(2)}, None, "args is a dict"),
            ("x", None, "args is a str"),
            (None, "x", "kwargs is 'x'"),
        ],
    )
    def test_wrong_args(self, net, args, kwargs, message):
        with pytest.raises(InputError, match=message):
            transform(net, args, kwargs=kwargs, patterns=PATTERNS)

    def test_wrong_patterns_and_trace(self, net):
        with pytest.raises(InputError, match="expected None, or a list or a tuple, each a Pattern"):
            transform(net, patterns="tensorrt")
        with pytest.raises(InputError, match=r"expected Trace\.AUTO"):
            transform(net, patterns=PATTERNS, trace="sideways")
        with pytest.raises(InputError, match="Pass an instance"):
            transform(net, patterns=[ConvPattern])

    def test_keyword_inputs(self, net):
        x = torch.randn(2, 4, 8, 8)
        result = transform(net, kwargs={"x": x}, patterns=PATTERNS)
        assert result.verify(x=x).max_abs == 0


class TestPlans:
    def test_disable_one(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        match = plan.get("relu", "ConvBNActPattern")
        assert repr(match) == "PatternMatch(ConvBNActPattern at 'relu', apply=True)"
        match.apply = False
        result = apply_transformation_plan(plan)
        assert result.matches["relu"]["ConvBNActPattern"].reason == "switched off in the plan"
        assert result.report["applied_count"] == 3  # two calls of the block, and the tail
        assert "head" in result.report["unfused"]

    def test_what_changes_a_value_in_place_is_listed_though_nobody_reads_its_result(self):
        class Doubling(nn.Module):
            def forward(self, x):
                y = x + 1
                y.mul_(2.0)
                return y

        report = transform(Doubling(), patterns=PATTERNS).report
        assert report["unfused"] == {"add": "add", "mul_": "mul_"}

    def test_disable_lets_the_next_move_up(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        (promoted,) = plan.disable("relu", "ConvBNActPattern")
        assert (promoted.pattern_name, promoted.node_name) == ("ConvPattern", "head")
        result = apply_transformation_plan(plan)
        assert result.report["applied_count"] == 4
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_overlap_is_a_reason(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        match = plan.get("head", "ConvPattern")
        assert not match.apply
        assert match.reason == "overlaps ConvBNActPattern at relu"

    def test_two_switched_on_for_one_node_the_first_has_it(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        plan.get("head", "ConvPattern").apply = True
        result = apply_transformation_plan(plan)
        assert "overlaps" in result.matches["head"]["ConvPattern"].reason
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_only_once(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        apply_transformation_plan(plan)
        with pytest.raises(PlanError, match="applied before"):
            apply_transformation_plan(plan)

    def test_model_is_the_captured_graph(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        x = torch.randn(1, 4, 8, 8)
        for a, b in zip(plan.model(x), net(x), strict=True):
            assert torch.equal(a, b)
        apply_transformation_plan(plan)
        assert not any(isinstance(m, FusedChain) for m in plan.model.modules())

    def test_unknown_entries(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        with pytest.raises(PlanError, match="no match ends at 'nowhere'"):
            plan.get("nowhere", "ConvPattern")
        with pytest.raises(PlanError, match="there are"):
            plan.get("relu", "NoPattern")
        with pytest.raises(PlanError, match="no node or module 'nowhere'"):
            plan.why_not("nowhere")
        with pytest.raises(PlanError, match="no pattern 'NoPattern'"):
            plan.why_not("head", "NoPattern")

    def test_why_not_by_module_path_and_for_a_near_miss(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        assert "block.conv: ConvBNActPattern applies (block_conv → block_bn → block_act)" in plan.why_not("block.conv")
        (line,) = plan.why_not("tail", "ConvBNActPattern")
        assert line == "tail: ConvBNActPattern does not match: tail is followed by the model's output, " \
            "expected ReLU or ReLU6 or LeakyReLU or ELU or GELU or SiLU or Hardswish or Hardsigmoid"  # fmt: skip
        assert plan.why_not("add") == ["add: ConvAddActPattern does not match: " + near_miss_of_add()]

    def test_printed(self, net):
        plan = get_transformation_plan(net, patterns=PATTERNS)
        text = str(plan)
        assert "Plan for Net (symbolic capture, patterns given): 4 of 7 matches to apply, 0 declined" in text
        assert "block_conv → block_bn → block_act" in text
        report = str(apply_transformation_plan(plan).report)
        assert "Net: 4 rewrites applied" in report
        assert "Left as they are: add ×1" in report


def near_miss_of_add():
    return "add comes after relu (ReLU) and block_act_1 (ReLU), expected BatchNorm2d"


class TestPatternsThatFail:
    class Failing(Pattern):
        """Edits the graph in every way, then raises."""

        tree = (nn.Conv2d,)

        def replace(self, pattern_match):
            node = pattern_match.tree_match.last
            graph_module = node.graph.owning_module
            graph_module.add_submodule("debris", nn.Linear(1, 1))
            with node.graph.inserting_before(node):
                other = node.graph.call_function(torch.neg, (node.args[0],))
            node.replace_all_uses_with(other)
            other.meta["debris"] = True
            node.graph.erase_node(node)
            raise RuntimeError("broken on purpose")

    def test_rolled_back_and_the_rest_applied(self, net):
        result = transform(net, patterns=[ConvBNActPattern(), self.Failing()])
        assert result.report["failed_count"] == 1
        (failed,) = result.report["failed"]
        assert failed["pattern"] == "Failing"
        assert failed["node"] == "tail"
        assert failed["reason"] == "RuntimeError: broken on purpose"
        assert result.report["applied_count"] == 3
        assert not hasattr(result.model, "debris")
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0
        assert "Failed and undone" in str(result.report)
        assert "tail: Failing failed: RuntimeError: broken on purpose" in result.report.why_not("tail")

    def test_failing_before_others_of_its_kind(self):
        class Sometimes(Pattern):
            tree = (nn.Conv2d,)

            def replace(self, pattern_match):
                if pattern_match.node_name == "_1":
                    return TestPatternsThatFail.Failing.replace(self, pattern_match)
                return super().replace(pattern_match)

            graft = FusedChain

        net = nn.Sequential(*(nn.Conv2d(2, 2, 1) for _ in range(4))).eval()
        result = transform(net, patterns=[Sometimes()])
        assert [m["node"] for m in result.report["applied"]] == ["_0", "_2", "_3"]
        assert [m["node"] for m in result.report["failed"]] == ["_1"]
        assert result.verify(torch.randn(1, 2, 3, 3)).max_abs == 0

    def test_conversion_that_fails_is_not_tried_for_ever(self, net):
        class FailingConversion(self.Failing):
            is_conversion = True

        result = transform(net, patterns=[FailingConversion(), ConvBNActPattern()])
        assert result.report["failed_count"] == 4
        assert result.report["applied_count"] == 3
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_strict_raises(self, net):
        with pytest.raises(PatternError, match=r"'Failing' failed at 'tail'.*broken on purpose"):
            transform(net, patterns=[ConvBNActPattern(), self.Failing()], strict=True)

    def test_graph_left_broken_without_raising(self, net):
        class Vandal(Pattern):
            tree = (nn.Conv2d,)

            def replace(self, pattern_match):
                pattern_match.tree_match.last.target = "not.there"
                return [pattern_match.tree_match.last]

        result = transform(net, patterns=[ConvBNActPattern(), Vandal()])
        assert [m["pattern"] for m in result.report["failed"]] == ["Vandal"]
        assert result.report["applied_count"] == 3
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_replace_that_returns_nothing(self, net):
        class Silent(Pattern):
            tree = (nn.Conv2d,)

            def replace(self, pattern_match):
                return None

        result = transform(net, patterns=[ConvBNActPattern(), Silent()])
        assert "expected the list of new nodes" in result.report["failed"][0]["reason"]

    def test_match_that_raises(self, net):
        class Blind(Pattern):
            tree = (nn.Conv2d,)
            graft = FusedChain

            def check(self, match):
                raise KeyError("lost")

        result = transform(net, patterns=[Blind(), ConvBNActPattern()])
        assert result.report["applied_count"] == 3
        assert {entry["reason"] for entry in result.report["failed"]} == {"check() raised KeyError: 'lost'"}
        with pytest.raises(PatternError, match=r"'Blind'.*lost"):
            transform(net, patterns=[Blind()], strict=True)

    def test_check_that_raises_at_one_place_fails_there_only(self):
        class Once(Pattern):
            tree = (nn.Linear,)
            graft = FusedChain

            def check(self, match):
                if match.node_name == "_0":
                    raise IndexError("out of range")

        result = transform(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), patterns=[Once()])
        assert (result.report["applied_count"], result.report["declined"]) == (1, [])
        (failed,) = result.report["failed"]
        assert (failed["node"], failed["reason"]) == ("_0", "check() raised IndexError: out of range")
        assert "check() raised IndexError" in str(result.report)
        assert any("failed" in line for line in result.report.why_not("_0"))

    @pytest.mark.parametrize("is_conversion", [False, True])
    def test_check_that_returns_no_reason(self, is_conversion):
        class Agreeing(Pattern):
            tree = (nn.Linear,)
            graft = FusedChain

            def check(self, match):
                return True

        Agreeing.is_conversion = is_conversion
        result = transform(nn.Sequential(nn.Linear(3, 3)), patterns=[Agreeing()])
        wanted = "check() returned True; expected None to take the place, or the reason not to as text"
        assert [entry["reason"] for entry in result.report["failed"]] == [wanted]
        assert "check() returned True" in str(result.report)
        with pytest.raises(
            PatternError, match=r"'Agreeing' failed at '_0': check\(\) returned True; .* as text\. Repair"
        ):
            transform(nn.Sequential(nn.Linear(3, 3)), patterns=[Agreeing()], strict=True)

    def test_warning_names_the_line_of_the_pattern(self, caplog):
        class Breaking(Pattern):
            tree = (nn.Linear,)

            def replace(self, pattern_match):
                raise KeyError("boom")

        transform(nn.Sequential(nn.Linear(3, 3)), patterns=[Breaking()])
        (record,) = caplog.records
        head, tail = "Pattern 'Breaking' failed at '_0' in replace (test_pipeline.py:", "): KeyError: 'boom'. Nothing"
        assert record.getMessage().startswith(head)
        assert tail in record.getMessage()

    def test_graft_whose_constructor_does_not_fit(self, net):
        class TooFew(nn.Module):
            def __init__(self, conv):
                super().__init__()

        class Misfit(ConvBNActPattern):
            graft = TooFew

        with pytest.raises(PatternError, match=r"'Misfit'.*TooFew\(conv\) does not fit the tree, which gives 3"):
            transform(net, patterns=[Misfit()])

    def test_graft_that_raises(self, net):
        class Refusing(nn.Module):
            def __init__(self, *parts):
                raise ValueError("I refuse")

        class Pattern2(ConvBNActPattern):
            graft = Refusing

        result = transform(net, patterns=[Pattern2(), ConvPattern()])
        assert {m["reason"] for m in result.report["failed"]} == {"ValueError: I refuse"}
        assert result.verify(torch.randn(1, 4, 8, 8)).max_abs == 0

    def test_neither_graft_nor_replace(self, net):
        class Nothing(Pattern):
            tree = (nn.Conv2d,)

        with pytest.raises(PatternError, match="neither graft nor replace"):
            transform(net, patterns=[Nothing()])

    def test_wrong_qdq_points(self, net):
        class Wrong(ConvPattern):
            qdq_points = {"input"}

        with pytest.raises(PatternError, match="expected QDQPoint members"):
            transform(net, patterns=[Wrong()])

    @pytest.mark.parametrize("points", [QDQPoint.INPUT, "input", None])
    def test_qdq_points_that_are_no_set(self, net, points):
        class Wrong(ConvPattern):
            qdq_points = points

        with pytest.raises(PatternError, match=r"'Wrong': qdq_points is .*; expected a set of QDQPoint members"):
            transform(net, patterns=[Wrong()])


class TestTwins:
    """Patterns of one name, such as a backend's and that of an extension."""

    @staticmethod
    def twins():
        class Twin(Pattern):
            tree = (nn.Linear, nn.ReLU)
            graft = FusedChain

        first = Twin()
        other = type("Twin", (Twin,), {"__module__": "other"})()
        return nn.Sequential(nn.Linear(3, 3), nn.ReLU()), [first, other]

    @pytest.mark.parametrize("is_conversion", [False, True])
    def test_the_first_wins(self, is_conversion):
        model, patterns = self.twins()
        for pattern in patterns:
            pattern.is_conversion = is_conversion
        result = transform(model, patterns=patterns)
        applied = [match for match in result.report.matches if match.replaced_by]
        assert [match.pattern for match in applied] == patterns[:1]
        (skipped,) = result.report["skipped"]
        wanted = f"overlaps Twin at _1: an earlier pattern of that name (from {__name__}) took it"
        assert skipped["reason"] == wanted

    def test_the_same_pattern_twice(self):
        model, patterns = self.twins()
        assert transform(model, patterns=patterns[:1] * 2).report["applied_count"] == 1

    def test_the_second_can_be_had_instead(self):
        model, patterns = self.twins()
        plan = get_transformation_plan(model, patterns=patterns)
        assert list(plan.matches["_1"]) == ["Twin", "Twin#2"]
        assert plan.disable("_1", "Twin") == [plan.get("_1", "Twin#2")]
        again = load_transformation_plan(plan.to_json(), model, patterns=patterns)
        for made in (plan, again):
            matches = apply_transformation_plan(made).report.matches
            assert [match.pattern for match in matches if match.replaced_by] == patterns[1:]
