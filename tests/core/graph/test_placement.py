"""A module of a plugin that raises is named with its path, its pattern and who ships it, wherever it runs."""

import re

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
    r"report it to acme, and leave the pattern out for now"
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
    with pytest.raises(InputError, match=r"at node '_0_1'.*in Raising at '0', placed by pattern 'RaisingPattern'"):
        transform(result.model, X, patterns=[])


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
