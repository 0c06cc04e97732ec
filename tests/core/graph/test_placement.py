"""A module of a plugin that raises is named with its path, its pattern and who ships it, wherever it runs."""

import re
import sys

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform, verify_stages
from embedl_deploy.errors import ExportError, FusedModuleError, InputError, PatternError
from embedl_deploy.graph.placement import placement_of
from embedl_deploy.modules import FusedConv, FusedModule
from embedl_deploy.patterns import Pattern, QDQPoint
from embedl_deploy.quantize import calibrate, insert_qdq, quantize

X = torch.randn(2, 3, 8, 8)


class Raising(FusedConv):
    inputs_to_quantize = frozenset({0})

    def forward(self, x):
        return self.convolve(x).reshape(7, 7)


class RaisingPattern(Pattern):
    tree = (nn.Conv2d,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = Raising
    origin = "acme 1.2"


@pytest.fixture(scope="module")
def result():
    return transform(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), patterns=[RaisingPattern()])


WORDS = (
    r"Raising at '0', placed by pattern 'RaisingPattern' from acme 1\.2 \(test_placement\.py:\d+\), raised "
    r"RuntimeError: shape '\[7, 7\]' is invalid .*\. If the original model takes these inputs, the module is wrong: "
    r"report it to acme, and switch the match off until it is fixed"
)


@pytest.mark.parametrize(
    "run",
    [
        lambda result: result.verify(X),
        lambda result: verify_stages(result.report.plan.original, X, {"fused": result}),
        lambda result: calibrate(insert_qdq(result.model, result.matches), [X], progress=False),
        lambda result: quantize(result, lambda model: model(X), progress=False),
    ],
    ids=["verify", "verify_stages", "calibrate", "quantize"],
)
def test_whatever_runs_it_names_module_pattern_and_distribution(result, run):
    with pytest.raises(FusedModuleError, match=WORDS) as raised:
        run(result)
    error = raised.value
    assert (error.module_path, error.pattern, error.distribution) == ("0", "RaisingPattern", "acme 1.2")
    assert isinstance(error.__cause__, RuntimeError)


def test_so_does_the_exporter(result, tmp_path):
    with pytest.raises(ExportError, match=r"\(in Raising at '0', placed by pattern 'RaisingPattern' from acme 1\.2"):
        export_onnx(result, X, tmp_path / "model.onnx")


def test_so_do_shapes_of_a_model_that_is_transformed_again(result):
    with pytest.raises(InputError, match=r"at '0' \(Raising\).*in Raising at '0', placed by pattern 'RaisingPattern'"):
        transform(result.model, X, patterns=[])


class Wrong(FusedConv):
    """Gives what ``damage`` makes of its input and of what it should give."""

    inputs_to_quantize = frozenset({0})
    damage = staticmethod(lambda x, y: y)

    def forward(self, x):
        return self.damage(x, self.convolve(x))


class WrongPattern(RaisingPattern):
    graft = Wrong


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        x = x * 2
        return self.act(self.conv(x)) + x


DAMAGES = {
    "tuple": (lambda x, y: (y,), "returns a tuple of 1 (float32[2, 4, 8, 8]), expected float32[2, 4, 8, 8]"),
    "none": (lambda x, y: None, "returns None, expected float32[2, 4, 8, 8]"),
    "dict": (lambda x, y: {"y": y}, "returns a dict, expected float32[2, 4, 8, 8]"),
    "rank": (lambda x, y: y.flatten(2), "returns float32[2, 4, 64], expected float32[2, 4, 8, 8]"),
    "size that broadcasts": (
        lambda x, y: y[:, :, :1, :1],
        "returns float32[2, 4, 1, 1], expected float32[2, 4, 8, 8]",
    ),
    "dtype": (lambda x, y: y.double(), "returns float64[2, 4, 8, 8], expected float32"),
    "device": (lambda x, y: y.to("meta"), "returns a tensor on meta, expected cpu"),
    "input": (lambda x, y: (x.add_(1), y)[1], "writes to its input, which the replaced nodes do not change"),
    "view": (lambda x, y: x.view(x.shape), "returns a view of its input, which 'act' overwrites later"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_like_what_it_replaced_is_named_and_nobody_else(damage, words, monkeypatch):
    monkeypatch.setattr(Wrong, "damage", staticmethod(damage))
    x = torch.randn(2, 4, 8, 8)
    result = transform(Branches().eval(), x, patterns=[WrongPattern()])
    wanted = f"Wrong at 'conv', placed by pattern 'WrongPattern' from acme 1.2, {words}"
    for run in (
        lambda: result.verify(x),
        lambda: quantize(result, [x], progress=False),
        lambda: verify_stages(result.report.plan.original, x, {"fused": result}, layers=True),
    ):
        with pytest.raises(FusedModuleError) as raised:
            run()
        assert str(raised.value).startswith(wanted)
        assert "Report it to acme, and switch the match off until it is fixed" in str(raised.value)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in result.model.modules())


def test_so_are_they_by_the_exporter_and_where_the_result_is_transformed_again(monkeypatch, tmp_path):
    monkeypatch.setattr(Wrong, "damage", staticmethod(lambda x, y: (y,)))
    x = torch.randn(2, 4, 8, 8)
    result = transform(Branches().eval(), x, patterns=[WrongPattern()])
    words = r"Wrong at 'conv', placed by pattern 'WrongPattern' from acme 1\.2, returns a tuple of 1"
    with pytest.raises(ExportError, match=rf"cannot be exported to ONNX with .*: {words}"):
        export_onnx(result, x, tmp_path / "model.onnx")
    with pytest.raises(FusedModuleError, match=words):
        transform(result.model, x, patterns=[])


def test_a_tensor_is_due_without_example_inputs_too(monkeypatch):
    monkeypatch.setattr(Wrong, "damage", staticmethod(lambda x, y: (y,)))
    with pytest.raises(FusedModuleError, match=r"Wrong at 'conv'.*returns a tuple of 1 .*, expected a tensor\. Report"):
        transform(Branches().eval(), patterns=[WrongPattern()]).verify(torch.randn(2, 4, 8, 8))


@pytest.mark.parametrize("size", [(3, 4, 8, 8), (2, 4, 5, 7)], ids=["batch", "image"])
def test_other_sizes_and_types_than_those_of_the_example_are_no_fault(size):
    model = Branches().eval()
    result = transform(model, torch.randn(2, 4, 8, 8), patterns=[WrongPattern()])
    assert result.verify(torch.randn(size)).max_abs == 0
    with torch.autocast("cpu", torch.bfloat16):
        assert result.verify(torch.randn(size)).max_rel < 0.1
    result.model.double()
    model.double()
    assert result.verify(torch.randn(size).double()).max_abs == 0


def test_writing_is_no_fault_where_what_was_replaced_wrote():
    class Activation(FusedModule):
        makes_new_tensor = False

        def __init__(self, act):
            super().__init__()
            self.act = act

        def forward(self, x):
            return self.act(x)

    pattern = type("ActPattern", (Pattern,), {"tree": (nn.ReLU,), "graft": Activation})()
    x = torch.randn(2, 4, 8, 8)
    assert transform(Branches().eval(), x, patterns=[pattern]).verify(x).max_abs == 0


@pytest.mark.parametrize("code", [0, "no licence"])
def test_a_module_that_ends_the_process_is_named(monkeypatch, code):
    monkeypatch.setattr(Wrong, "damage", staticmethod(lambda x, y: sys.exit(code)))
    result = transform(Branches().eval(), patterns=[WrongPattern()])
    x = torch.randn(2, 4, 8, 8)
    for run in (lambda: result.verify(x), lambda: quantize(result, [x], progress=False)):
        with pytest.raises(FusedModuleError, match=rf"Wrong at 'conv'.*, raised SystemExit: {code}"):
            run()


def test_what_others_raise_passes(result):
    def loop(model):
        raise KeyError("the user's own")

    with pytest.raises(KeyError, match="the user's own"):
        calibrate(insert_qdq(result.model, result.matches), loop, progress=False)


def test_a_lack_of_memory_is_no_fault_of_the_module():
    class Hungry(Raising):
        def forward(self, x):
            raise torch.OutOfMemoryError("no memory left")

    pattern = type("HungryPattern", (RaisingPattern,), {"graft": Hungry})()
    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        transform(nn.Sequential(nn.Conv2d(3, 4, 3)), patterns=[pattern]).verify(X)


def test_modules_of_torch_are_not_marked(result):
    assert placement_of(result.model.get_submodule("1")) is None
    assert str(placement_of(result.model.get_submodule("0"))) == "pattern 'RaisingPattern' from acme 1.2"


class TwoInputs(FusedModule):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x, residual):
        return self.conv(x) + residual


class NoInput(TwoInputs):
    def forward(self):
        return None


@pytest.mark.parametrize(
    ("graft", "problem"), [(TwoInputs, "missing a required argument: 'residual'"), (NoInput, "too many")]
)
def test_a_forward_with_another_number_of_inputs_is_known_when_it_is_placed(graft, problem):
    pattern = type("WrongPattern", (Pattern,), {"tree": (nn.Conv2d,), "graft": graft, "origin": "acme 1.2"})()
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    with pytest.raises(PatternError) as raised:
        transform(model, patterns=[pattern], strict=True)
    assert re.search(
        rf"Pattern 'WrongPattern' \(from acme 1\.2\): {graft.__name__} does not take what flows into the match at "
        rf"'_0', 1 value\(s\) \(input_1\): forward\(self.*\): {problem}.*Give forward a parameter for each",
        str(raised.value),
    )
    report = transform(model, patterns=[pattern]).report
    assert (report["failed_count"], report["applied_count"]) == (1, 0)
