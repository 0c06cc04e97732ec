"""Searching where to quantize, with a compiler whose engines are known beforehand."""

import itertools
import math
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from embedl_deploy import apply_transformation_plan, export_onnx, load_transformation_plan
from embedl_deploy.backend import get_backend
from embedl_deploy.compiling import Engine
from embedl_deploy.compiling.guarded import CompilerEndedError, GuardedCompiler
from embedl_deploy.engine import EngineTensor
from embedl_deploy.errors import CompileError, InputError, QuantizationError
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantization_report, quantize
from embedl_deploy.sensitivity.layers import layers_of
from embedl_deploy.state_file import StateFile
from embedl_deploy.tuning import TunedPolicy, api, builds, identity, tune
from embedl_deploy.tuning.builds import Built
from embedl_deploy.tuning.objectives import objective_of
from embedl_deploy.tuning.placed_file import PlacedFile
from embedl_deploy.tuning.subject import Subject
from embedl_deploy.tuning.units import units_of
from support.engines import layer, report
from support.running_engines import Adding
from support.tunable import FP8, PER_QUANTIZER, Chip, Residual, transformed


class WithoutActivation(Residual):
    """Another graph with parameters of the same names and shapes."""

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(block(x) + x)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def residual():
    return transformed(Residual, (2, 3, 8, 8))


@pytest.fixture
def chip(monkeypatch):
    def install(**settings):
        made = Chip(**settings)
        monkeypatch.setattr(builds, "compile_onnx", made)
        return made

    return install


@pytest.fixture(scope="module")
def tuned(residual):
    """What is found with nothing to hold it back."""
    result, x = residual
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builds, "compile_onnx", Chip())
        return tune(result, [x], target="sm89", formats=(), progress=False)


def least(result, x, chip):
    """The least objective of all candidates, by trying them all."""
    quantized = quantize(result, [x], progress=False)
    units = units_of(layers_of(quantized, quantization_report(quantized)))
    whole = export_onnx(quantized, x, chip.folder / "all.onnx", dtype=torch.float16, tolerance=None)
    file, found = PlacedFile(whole.path, quantization_report(quantized).quantized), []
    for chosen in itertools.product((False, True), repeat=len(units)):
        points = frozenset().union(*(unit.points for unit, on in zip(units, chosen, strict=True) if on))
        file.write(chip.folder / "one.onnx", points)
        found.append(chip(chip.folder / "one.onnx", chip.folder / "e", target="sm89").report.activation_bytes)
    return min(found)


def test_the_search_finds_the_best_of_all_candidates(residual, tuned, tmp_path):
    result, x = residual
    compiler, found = Chip(), tuned
    compiler.folder = tmp_path
    assert found.finished
    assert found.best.objective == least(result, x, compiler)
    starts = [trial for trial in found.trials if trial.name in ("float16", "everything", "mixed")]
    assert len(starts) >= 2
    assert found.best.objective <= min(trial.objective for trial in starts)
    assert ("stem", "weight") in found.policy.in_float
    assert "activation_bytes" in found.policy.in_float["stem", "weight"]
    assert ("blocks.0", "weight") in found.policy.quantized


IN_FP8 = {"stem": (30, 40, 10), "blocks.0": (60, 20, 40), "blocks.1": (60, 20, 40), "head": (20, 10, 1)}
FORMATS = ["float16", "int8", "float8e4m3fn"]


def test_each_layer_gets_the_format_that_the_compiler_makes_the_best_of(residual, chip, tmp_path):
    result, x = residual
    chip(costs=lambda node, name, precision: IN_FP8[name][FORMATS.index(precision)])
    found = tune(result, [x], target="sm89", progress=False)
    names = {trial.name for trial in found.trials}
    assert {"everything in FP8", "mixed in FP8"} <= names
    formats = {"stem": "float16", "blocks.0": "INT8", "blocks.1": "INT8", "head": "FP8"}  # FP8 needs four channels
    assert found.best.objective < 30 + 2 * 20 + 1 + 4 * PER_QUANTIZER
    found.policy.save(tmp_path / "tuned.json")
    policy = TunedPolicy.load(tmp_path / "tuned.json")
    assert policy == found.policy
    for config in (found.config, policy.config()):
        again = quantization_report(quantize(result, [x], config, progress=False))
        weights = {point.path: point for point in again.points if point.label == "weight"}
        assert {
            path: "float16" if point.format is None else point.format.precision.name for path, point in weights.items()
        } == formats
    with pytest.raises(QuantizationError, match=r"Pass policy\.config\(\) instead"):
        quantize(result, [x], QuantConfig(policy=policy), progress=False)


def test_formats_are_those_of_the_target(residual, chip):
    result, x = residual
    chip()
    how = {"seconds": 0.0, "progress": False}
    assert not any("FP8" in trial.name for trial in tune(result, [x], target="sm86", **how).trials)
    assert not any("FP8" in trial.name for trial in tune(result, [x], target="sm89", formats=(), **how).trials)
    asked = tune(result, [x], target="sm86", formats=[Precision.FP8], **how)
    assert any("FP8" in trial.name for trial in asked.trials)
    with pytest.raises(InputError, match="INT4, which is for weights alone"):
        tune(result, [x], target="sm89", formats=[Precision.INT4], **how)
    with pytest.raises(InputError, match="formats has NVFP4, of which files hold numbers"):
        tune(result, [x], target="sm120", formats=[Precision.NVFP4], **how)
    blocks = QuantConfig(weight=TensorQuantConfig(Precision.INT4, block_size=4), activation=None)
    with pytest.raises(InputError, match="only take the place of both"):
        tune(result, [x], target="sm89", formats=[Precision.FP8], config=blocks, **how)
    with pytest.raises(InputError, match="has weights in NVFP4, which files hold as numbers of the format"):
        tune(result, [x], target="sm120", config=QuantConfig(None, TensorQuantConfig(Precision.NVFP4)), **how)


class Pooled(nn.Module):
    """A classifier on pooled features, which the backend makes a convolution before the pooled sides are dropped."""

    def __init__(self):
        super().__init__()
        self.stem, self.pool, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.flatten(self.pool(torch.relu(self.stem(x))), 1))


def test_a_rewrite_that_costs_is_switched_off(chip):
    result, x = transformed(Pooled, (2, 3, 8, 8))
    compiler = chip(costs=lambda node, name, precision: 50 if (name, node.op_type) == ("head", "Conv") else 5)
    found = tune(result, [x], target="sm89", formats=(), progress=False)
    name = "FlattenLinearToConv1x1Pattern at head"
    assert found.rewrites[name].startswith("switched off: ")
    assert found.rewrites["ConvBNReLUPattern at stem"] == "kept: the compiler gets the same file without it"
    assert found.best.objective == 5 + 5
    assert compiler.builds == found.builds

    plan = load_transformation_plan(found.plan, result.report.plan.original, x)
    again = apply_transformation_plan(plan)
    assert any(isinstance(part, nn.Linear) for part in again.model.modules())
    kept = tune(result, [x], target="sm89", formats=(), rewrites=False, progress=False)
    assert kept.rewrites == {}
    assert kept.best.objective == 50 + 5


def test_an_output_is_not_read_in_another_format():
    result, x = transformed(Pooled, (2, 3, 8, 8))
    report = quantization_report(quantize(result, [x], progress=False))
    in_fp8 = quantization_report(quantize(result, [x], FP8, progress=False)).quantized
    output = next(point for point in report.quantized if point.kind is PointKind.OUTPUT)
    read = next(point for point in report.quantized if point.stub == output.stub and point is not output)
    other = next(point for point in in_fp8 if (point.path, point.label) == (read.path, read.label))
    subject = SimpleNamespace(report=report)
    assert Subject.is_consistent(subject, frozenset({output, read}))
    assert Subject.is_consistent(subject, frozenset({output}))
    assert Subject.is_consistent(subject, frozenset({other}))
    assert not Subject.is_consistent(subject, frozenset({output, other}))


def test_the_decisions_are_applied_without_the_search(residual, tuned, tmp_path):
    (result, x), found = residual, tuned
    found.policy.save(tmp_path / "tuned.json")
    policy = TunedPolicy.load(tmp_path / "tuned.json")
    assert policy == found.policy
    again = quantization_report(quantize(result, [x], QuantConfig(policy=policy), progress=False))
    assert {(point.path, point.label) for point in again.quantized} == set(found.policy.quantized)
    stem = next(point for point in again.not_quantized if (point.path, point.label) == ("stem", "weight"))
    assert "tuned: activation_bytes" in stem.rule


def test_the_accuracy_holds(residual, tuned, chip):
    (result, x), free = residual, tuned
    chip()
    keep = free.best.accuracy + 3
    held = tune(result, [x], target="sm89", formats=(), keep=keep, progress=False)
    assert held.best.accuracy >= keep
    assert held.best.objective > free.best.objective
    assert any("not built" in trial.outcome for trial in held.trials)
    quantized = quantize(result, [x], held.config, progress=False)
    with torch.no_grad():
        noise = quantized(x) - result.model(x)
        assert 10 * math.log10(float(result.model(x).square().sum() / noise.square().sum())) >= keep - 0.01


def test_the_users_own_measure_decides(residual, chip):
    result, x = residual
    chip()
    found = tune(
        result, [x], target="sm89", formats=(), evaluate=lambda model: 1.0, keep=1.0, seconds=0.0, progress=False
    )
    assert found.measure == "evaluate"
    assert found.best.accuracy == 1.0
    with pytest.raises(InputError, match="no start is better"):
        tune(result, [x], target="sm89", formats=(), evaluate=lambda model: 0.5, keep=1.0, progress=False)


def test_an_interrupted_search_loses_no_engine_that_was_built(residual, tuned, chip, tmp_path):
    (result, x), whole = residual, tuned
    state = tmp_path / "state.json"
    first = chip(breaks_at=4)
    with pytest.raises(KeyboardInterrupt):
        tune(result, [x], target="sm89", formats=(), state=state, progress=False)
    assert first.builds == 4
    second = chip()
    resumed = tune(result, [x], target="sm89", formats=(), state=state, progress=False)
    assert second.builds == whole.builds - 4
    assert resumed.builds == second.builds
    assert (resumed.policy, resumed.trials) == (whole.policy, whole.trials)


@pytest.fixture(scope="module")
def saved(residual, tmp_path_factory):
    """The state of a search."""
    (result, x), state = residual, tmp_path_factory.mktemp("saved") / "state.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builds, "compile_onnx", Chip())
        tune(result, [x], target="sm89", formats=(), state=state, seconds=0.0, progress=False)
    return state


def test_the_state_of_something_else_is_refused_by_name(residual, saved, chip, monkeypatch):
    result, x = residual
    compiler = chip()

    def refused(what, *, of=result, data=(x,), target="sm89", **settings):
        with pytest.raises(InputError, match=f"is the state of another {what}: .*Give another file, or delete it"):
            tune(of, data, target=target, formats=(), state=saved, progress=False, **settings)

    other = transformed(Residual, (2, 3, 8, 8))[0]
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    refused("model", of=other)
    refused("graph", of=transformed(WithoutActivation, (2, 3, 8, 8))[0])
    refused("target", target="sm86")
    refused("config", config=QuantConfig(skip=["head"]))
    refused("config", config=QuantConfig(weight=TensorQuantConfig(per_channel=False)))
    refused("data", data=[x + 1])
    refused("data", held_out=[x + 1])
    refused("calibration", data=[x * 2], held_out=[x])
    monkeypatch.setattr(identity, "release", lambda: "embedl-deploy 9")
    refused("release")
    monkeypatch.undo()
    chip()
    monkeypatch.setattr(GuardedCompiler, "describe", lambda self: "another compiler 1.0")
    refused("compiler")
    assert compiler.builds == 0
    state = StateFile(saved.with_name("other.json"), {"function": "sensitivity"})
    state.save({})
    with pytest.raises(InputError, match="is the state of another function: 'sensitivity', and this is 'tune'"):
        tune(result, [x], target="sm89", formats=(), state=state.path, progress=False)


def test_engines_serve_another_objective_and_another_accuracy_to_keep(residual, saved, chip, tmp_path):
    result, x = residual
    state = tmp_path / "state.json"
    state.write_bytes(saved.read_bytes())
    compiler = chip()
    settings = {"target": "sm89", "formats": (), "objective": "kernels", "keep": 30.0, "progress": False}
    with_state = tune(result, [x], state=state, **settings)
    assert compiler.builds == with_state.builds > 0
    alone = tune(result, [x], **settings)
    assert (with_state.policy, with_state.trials) == (alone.policy, alone.trials)
    assert alone.builds >= with_state.builds + 2


def test_two_threads_tune_one_model_as_one_does(residual, tuned, chip):
    result, x = residual
    chip()
    found, expected = [], result.model(x)

    def work():
        found.append(tune(result, [x], target="sm89", formats=(), progress=False))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):  # and others go on with the model
        assert torch.equal(result.model(x), expected)
    for thread in threads:
        thread.join()
    assert [(each.policy, each.trials) for each in found] == [(tuned.policy, tuned.trials)] * 2


def test_of_two_searches_at_once_with_one_state_one_is_refused(residual, tuned, tmp_path, monkeypatch):
    (result, x), state = residual, tmp_path / "state.json"
    other, builder = [], Chip()

    def building(*args, **settings):
        if not other:
            with pytest.raises(InputError, match="is used by another run at this moment") as refused:
                tune(result, [x], target="sm89", formats=(), state=state, progress=False)
            other.append(refused.value)
        return builder(*args, **settings)

    monkeypatch.setattr(builds, "compile_onnx", building)
    found = tune(result, [x], target="sm89", formats=(), state=state, progress=False)
    assert len(other) == 1
    assert (found.policy, found.trials) == (tuned.policy, tuned.trials)


@pytest.mark.parametrize("crashes", [1, 2])
def test_a_compiler_that_is_killed_is_asked_once_more(residual, tuned, monkeypatch, crashes):
    (result, x), builder, left = residual, Chip(), [crashes]

    def building(*args, **settings):
        if builder.builds == 2 and left[0]:
            left[0] -= 1
            raise CompileError("It crashes.") from CompilerEndedError(["nothing"])
        return builder(*args, **settings)

    monkeypatch.setattr(builds, "compile_onnx", building)
    found = tune(result, [x], target="sm89", formats=(), progress=False)
    refused = [trial.name for trial in found.trials if trial.outcome == "the compiler refuses it"]
    assert refused == ([] if crashes == 1 else ["mixed"])
    assert (found.trials == tuned.trials) == (crashes == 1)


def test_the_time_is_kept_and_the_starts_are_tried_all_the_same(residual, chip):
    result, x = residual
    compiler = chip()
    found = tune(result, [x], target="sm89", formats=(), seconds=0.0, progress=False)
    assert not found.finished
    assert compiler.builds == len(found.trials) <= 3
    assert "the time was over" in str(found)


def test_what_the_compiler_refuses_is_not_chosen(residual, chip):
    result, x = residual
    chip(refuses=lambda graph: any(node.op_type == "QuantizeLinear" for node in graph))
    found = tune(result, [x], target="sm89", formats=(), progress=False)
    assert found.best.name == "float16"
    assert "the compiler refuses it" in str(found)


@pytest.mark.parametrize("objective", ["kernels", "estimate:RTX 4090"])
def test_the_result_is_never_worse_than_a_start(residual, chip, objective):
    result, x = residual
    chip()
    found = tune(result, [x], target="sm89", objective=objective, progress=False)
    starts = [trial for trial in found.trials if trial.start]
    assert {"float16", "everything", "everything in FP8"} <= {trial.name for trial in starts}
    assert found.best.objective == min(trial.objective for trial in found.trials)
    assert all(trial.estimates["RTX 4090"] > 0 for trial in starts)


class Timed:
    """Engines whose runs take as long as a table says, in the order in which they are loaded."""

    def __init__(self, seconds):
        self.seconds, self.loaded, self.log = seconds, [], []

    def __call__(self, path, **settings):
        place = len(self.loaded)
        self.loaded.append((path.name, settings))
        engine = Adding(self.log, str(place), (self.seconds(place),))
        engine.inputs = (EngineTensor("x", (2, 3, 8, 8), "float32"),)
        engine.run = lambda inputs: [inputs[0]]
        return Engine(path, engine)


LATENCY = {"target": "sm89", "objective": "latency", "rewrites": False, "formats": (), "progress": False}


def test_the_time_of_runs_is_an_objective(residual, chip, tmp_path, monkeypatch):
    result, x = residual
    compiler = chip()
    timed = Timed(lambda place: 1.0 + place / 100)  # float16 is the fastest, and what is built next comes near it
    monkeypatch.setattr(api, "load_engine", timed)
    how = {**LATENCY, "state": tmp_path / "state.json"}
    found = tune(result, [x], **how)
    assert found.best.name == "float16"
    # of eight engines the three that were loaded first are the fastest, and are loaded once more
    assert [round(trial.objective, 9) for trial in found.trials] == [1.08, 1.09, 1.1, 1.03, 1.04, 1.05, 1.06, 1.07]
    assert "tuned: latency 1.03 with it, not among the fastest" in found.policy.in_float.values()
    assert timed.loaded[0] == (
        "candidate.engine",
        {"backend": "tensorrt", "compiler": "tensorrt-rtx", "threads": None},
    )
    assert timed.log[:5] == ["time 0", "time 0", "time 1", "time 0", "time 1"]  # once alone, then the two take turns
    assert len(timed.loaded) == compiler.builds == found.builds
    again = tune(result, [x], **how)
    assert (again.builds, again.trials) == (0, found.trials)
    other = tune(result, [x], **{**how, "objective": "activation_bytes"})
    assert other.best.objective < 160  # by bytes another one is the best, of engines that are known already


def test_a_machine_that_becomes_slower_decides_nothing(residual, chip, monkeypatch):
    result, x = residual
    chip()
    slower = [1.0]

    class Slowing(Timed):
        def __call__(self, path, **settings):
            engine = super().__call__(path, **settings)
            plain = engine.loaded.time
            engine.loaded.time = lambda *asked: [each * slower[0] for each in plain(*asked)]
            slower[0] *= 1.5  # each time that something is loaded, for all that is loaded
            return engine

    monkeypatch.setattr(api, "load_engine", Slowing(lambda place: 1.0 if place == 0 else 0.5))
    found = tune(result, [x], **LATENCY)
    assert {round(trial.objective, 9) for trial in found.trials} == {1.5, 0.75}


def test_of_engines_that_are_as_fast_the_most_accurate_is_the_best(residual, chip, monkeypatch):
    result, x = residual
    chip()
    # float16 takes 1 s; then each next one is a little faster than the one before, by less than times can tell
    timed = Timed(lambda place: 1.0 if place == 0 else 0.5 * (1 - 1e-4 * place))
    monkeypatch.setattr(api, "load_engine", timed)
    found = tune(result, [x], **LATENCY)
    quantized = [trial for trial in found.trials if trial.quantized]
    assert found.best.accuracy == max(trial.accuracy for trial in quantized)
    monkeypatch.setattr(api, "load_engine", Timed(lambda place: 1.0 if place == 0 else 0.99))
    assert tune(result, [x], **LATENCY).best.name == "float16"


def test_a_search_goes_on_by_the_measure_that_it_began_with(residual, chip, tmp_path, monkeypatch):
    result, x = residual
    how = {**LATENCY, "state": tmp_path / "state.json"}
    chip(breaks_at=3)
    monkeypatch.setattr(api, "load_engine", Timed(lambda place: 1.0 if place == 0 else 0.5))
    with pytest.raises(KeyboardInterrupt):
        tune(result, [x], **how)
    chip()
    # the machine is ten times slower now: the reference is built again, and what is new is measured by it
    again = Timed(lambda place: 10.0 if place == 0 else 5.0)
    monkeypatch.setattr(api, "load_engine", again)
    found = tune(result, [x], **how)
    assert {trial.objective for trial in found.trials} == {1.0, 0.5}
    with pytest.raises(InputError, match="threads"):
        tune(result, [x], threads=2, **how)


def test_what_cannot_run_here_is_not_timed(residual, chip, monkeypatch):
    result, x = residual
    chip()
    monkeypatch.setattr(api, "load_engine", refused)
    with pytest.raises(CompileError, match="was not timed"):
        tune(result, [x], target="sm89", objective="latency", progress=False)


def refused(*args, **settings):
    raise CompileError("The engine was not timed: there is no GPU.")


def test_objectives_are_named_or_functions():
    backend = get_backend("tensorrt")
    engine = Built(report(layer("a"), layer("b")), 0.25)
    for asked, wanted in (("kernels", 2), ("activation_bytes", 800), ("engine_bytes", 1000), ("latency", 0.25)):
        objective = objective_of(asked, backend)
        assert (objective.name, objective(engine)) == (asked, wanted)
    seconds = objective_of("estimate:RTX 4090", backend)
    assert 0 < seconds(engine) < 1e-3
    own = objective_of(lambda report: -report.kernels, backend)
    assert own(engine) == -2
    for wrong in ("speed", "estimate:none"):
        with pytest.raises(InputError, match="objective is"):
            objective_of(wrong, backend)


def test_the_frontier_holds_what_nothing_else_beats(tuned):
    found = tuned
    objectives = [trial.objective for trial in found.frontier]
    accuracies = [trial.accuracy for trial in found.frontier]
    assert objectives == sorted(objectives)
    assert accuracies == sorted(accuracies)
    assert found.frontier[0].objective == found.best.objective
    assert found.frontier[-1].name == "float16"
    assert found.to_dict()["frontier"][-1] == "float16"


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"version": 1, "quantized": [["a"]], "in_float": []}'])
def test_decisions_that_are_none_are_refused(tmp_path, text):
    (tmp_path / "tuned.json").write_text(text)
    with pytest.raises(InputError, match="uned decisions"):
        TunedPolicy.load(tmp_path / "tuned.json")


def test_what_cannot_be_searched_is_refused_in_words(residual, chip):
    result, x = residual
    with pytest.raises(InputError, match="tune reads the calibration data twice"):
        tune(result, iter([x]), target="sm89", formats=(), progress=False)
    chip(refuses=lambda _: True)
    with pytest.raises(CompileError, match="refuses the model in float and quantized"):
        tune(result, [x], target="sm89", formats=(), progress=False)
    chip()
    for value, words in (
        (math.nan, "gave nan for the engine of 'float16'; expected a number"),
        (-math.inf, "gave -inf for the engine of 'float16'; expected a number"),
        (math.inf, "The objective is infinite for every engine"),
    ):
        with pytest.raises(InputError, match=words):
            tune(result, [x], target="sm89", formats=(), objective=lambda _, value=value: value, progress=False)
    for wrong, words in (
        ({"keep": math.nan}, "keep is nan; expected a number"),
        ({"keep": "25"}, "keep is '25'; expected a number"),
        ({"keep": torch.zeros(2)}, "keep is .*expected a number"),
        ({"seconds": -1.0}, "seconds is -1.0; expected a number, not negative"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"seconds": None}, "seconds is None"),
        ({"objective": 3}, "objective is 3"),
        ({"evaluate": 3}, "evaluate is 3"),
        ({"state": 3}, "state is 3"),
        ({"held_out": x}, "held_out is a tensor"),
        ({"held_out": [x * math.nan]}, "An output of the model is NaN on call 1 of held_out"),
        ({"held_out": [x, x.index_fill(0, torch.tensor(1), math.nan)]}, "is NaN on call 2 of held_out"),
        ({"held_out": []}, "has no batch"),
    ):
        with pytest.raises((InputError, QuantizationError), match=words):
            tune(result, [x], target="sm89", formats=(), progress=False, **wrong)


def test_an_engine_of_infinite_objective_is_not_chosen(residual, chip):
    result, x = residual
    chip()

    def small_enough(report):
        return math.inf if report.activation_bytes < 100 else report.activation_bytes

    found = tune(result, [x], target="sm89", formats=(), objective=small_enough, progress=False)
    assert 100 <= found.best.objective < math.inf
    assert any("its objective is infinite" in trial.outcome for trial in found.trials)
    assert all(trial.objective < math.inf for trial in found.frontier)


def test_outputs_of_integers_alone_need_a_measure():
    class Decision(Residual):
        def forward(self, x):
            return super().forward(x).argmax(-1)

    result, x = transformed(Decision, (2, 3, 8, 8))
    with pytest.raises(InputError, match=r"has no output in floating point.*Pass evaluate="):
        tune(result, [x], target="sm89", formats=(), progress=False)


def test_outputs_of_integers_are_tuned_with_a_measure(chip):
    class Decision(Residual):
        def forward(self, x):
            return super().forward(x).argmax(-1)

    result, x = transformed(Decision, (2, 3, 8, 8))
    chip()
    wanted = result.model(x)

    def agreement(model):
        return float((model(x) == wanted).float().mean())

    found = tune(result, [x], target="sm89", formats=(), evaluate=agreement, progress=False)
    assert found.best.objective < 100
