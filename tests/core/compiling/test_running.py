"""Running and timing engines on hardware that runs them."""

import dataclasses

import pytest
import torch

from embedl_deploy.backend import get_backend
from embedl_deploy.compiling import benchmark, benchmark_together, load_engine, run_engine, running
from embedl_deploy.engine import EngineTensor
from embedl_deploy.errors import CompileError, CompilerNotFoundError, InputError, PluginError
from support.compilers import Acme
from support.running_engines import INPUTS, SUM, Adding, Runs, X


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "net.acme"
    path.write_text("4 1 2 3 100")
    return path


@pytest.fixture
def use_here(monkeypatch):
    def run(*compilers):
        backend = dataclasses.replace(get_backend("sensai"), compilers=compilers)
        monkeypatch.setattr(running, "get_backend", lambda name: backend)
        return compilers[0]

    return run


@pytest.mark.parametrize(
    "inputs",
    [INPUTS, list(INPUTS), {"y": INPUTS[1], "x": INPUTS[0]}, (INPUTS[0].double(), INPUTS[1].half())],
    ids=["in order", "a list", "by name", "other floating-point types"],
)
def test_outputs_have_their_names(use_here, engine, inputs):
    use_here(Runs())
    found = run_engine(engine, inputs)
    assert list(found) == ["sum"]
    assert found["sum"].dtype is torch.float32
    assert found["sum"].tolist() == [[11.0, 22.0, 33.0]]


WRONG = {
    "a name that is missing": ({"x": INPUTS[0]}, r"The inputs of net\.acme are 'x', 'y': 'y' missing\."),
    "a name too much": (
        {"x": INPUTS[0], "z": INPUTS[1]},
        r"The inputs of net\.acme are 'x', 'y': 'y' missing; 'z' not known\.",
    ),
    "too few": (INPUTS[0], r"The inputs of net\.acme are 'x', 'y', but 1 tensors were given\."),
    "a shape": ((torch.zeros(2, 4), INPUTS[1]), r"'x' of net\.acme has the shape \?×3, but 2×4 was given\."),
    "a rank": ((INPUTS[0], torch.tensor(1.0)), r"'y' of net\.acme has the shape 3, but a single number was given\."),
    "a type": ((INPUTS[0], torch.zeros(3).int()), r"'y' of net\.acme is in float32, but int32 was given\."),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_inputs_are_named(use_here, engine, name):
    compiler = use_here(Runs())
    inputs, message = WRONG[name]
    for call in (run_engine, benchmark):
        with pytest.raises(InputError, match=message):
            call(engine, inputs)
    assert compiler.log == []


def test_an_engine_is_loaded_once_for_many_runs(use_here, engine):
    compiler = use_here(Runs())
    loaded = load_engine(engine, threads=2)
    assert (loaded.path, loaded.inputs, loaded.outputs, loaded.threads) == (engine, (X, loaded.inputs[1]), (SUM,), 2)
    assert str(loaded) == "net.acme: x ?×3 float32, y 3 float32 → sum ?×3 float32"
    for _ in range(2):
        assert loaded.run(INPUTS)["sum"].shape == (1, 3)
    assert compiler.log == ["run net", "run net"]


def test_each_run_is_timed_after_some_that_are_not(use_here, engine):
    compiler = use_here(Runs())
    found = benchmark(engine, INPUTS, seconds=0.5, warm_up=2, threads=4)
    assert compiler.log == ["run net", "run net", "time net"]
    assert found.seconds == (0.004, 0.001, 0.002, 0.003, 0.1)
    assert (found.median, found.runs, found.threads) == (0.003, 5, 4)  # 1, 2, 3, 4, 100 ms: the slow run hardly counts
    assert found.quartiles == (0.002, 0.004)
    assert found.spread == pytest.approx(2 / 3)
    assert str(found) == "3 ms with 4 threads (half of 5 runs took 2 to 4 ms)"


def test_engines_that_are_compared_take_turns(use_here, tmp_path):
    compiler = use_here(Runs())
    for name, text in (("first", "1 2 3"), ("second", "5")):
        (tmp_path / f"{name}.acme").write_text(text)
    engines = [load_engine(tmp_path / f"{name}.acme") for name in ("first", "second")]
    first, second = benchmark_together(engines, INPUTS, seconds=0.3, warm_up=1, rounds=3)
    assert compiler.log == ["run first", "run second", *["time first", "time second"] * 3]
    assert first.seconds == (0.001, 0.002, 0.003)
    assert second.seconds == (0.005, 0.005, 0.005)


def test_the_compiler_is_the_one_that_writes_files_of_such_a_name(use_here, engine, tmp_path):
    use_here(Acme("other"), Runs(name="adds"))
    assert run_engine(engine, INPUTS)["sum"].shape == (1, 3)
    other = tmp_path / "net.engine"
    other.write_text("1")
    with pytest.raises(CompileError, match=r"'other' cannot run engines, so net\.engine was not run"):
        run_engine(other, INPUTS)
    assert run_engine(other, INPUTS, compiler="adds")["sum"].shape == (1, 3)
    use_here(Runs(missing="The package adds is not installed: pip install adds"))
    with pytest.raises(
        CompilerNotFoundError, match=r"(?s)can run net\.acme:\n  acme: The package adds is not installed"
    ):
        run_engine(engine, INPUTS)
    use_here(Runs())
    with pytest.raises(InputError, match="compiler is 'none'; backend 'sensai' has acme"):
        run_engine(engine, INPUTS, compiler="none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time": lambda *_: []}, r"\[\] from time\(\); expected a list with the seconds of each run"),
        ({"time": lambda *_: [0.1, -1.0]}, r"from time\(\); expected a list with the seconds"),
        ({"time": lambda *_: (0.1,)}, r"from time\(\); expected a list with the seconds"),
        ({"run": lambda *_: INPUTS}, r"from run\(\); expected a list of 1 tensors"),
        ({"run": lambda *_: [*INPUTS]}, r"from run\(\); expected a list of 1 tensors"),
        ({"run": lambda *_: 1 / 0}, r"fails in run\(\): ZeroDivisionError"),
        ({"inputs": ["x"]}, r"from load\(\)\.inputs; expected a tuple of EngineTensors"),
        ({"threads": 0}, r"returns 0 from load\(\)\.threads; expected a positive number or None"),
    ],
)
def test_what_it_must_not_answer_is_the_plugins_fault(use_here, engine, change, message):
    loaded = Adding([])
    for name, value in change.items():
        setattr(loaded, name, value)
    use_here(Runs(loaded=loaded))
    with pytest.raises(PluginError, match=message):
        benchmark(engine, INPUTS)


def test_what_is_no_engine_is_the_plugins_fault(use_here, engine):
    use_here(Runs(loaded="engine"))
    with pytest.raises(PluginError, match=r"returns 'engine' from load\(\); expected a LoadedEngine"):
        load_engine(engine)


def test_a_type_that_numpy_and_torch_call_otherwise_fits(use_here, engine):
    loaded = Adding([])
    loaded.inputs = (EngineTensor("x", (3,), "float8_e4m3"), EngineTensor("y", (3,), "of its own"))
    loaded.run = lambda inputs: [inputs[0].float()]
    use_here(Runs(loaded=loaded))
    assert run_engine(engine, (torch.ones(3), torch.ones(3).int()))["sum"].tolist() == [1.0, 1.0, 1.0]


def test_wrong_numbers(use_here, engine, tmp_path):
    use_here(Runs())
    with pytest.raises(InputError, match=r"seconds is 0\.0; expected a positive number"):
        benchmark(engine, INPUTS, seconds=0.0)
    with pytest.raises(InputError, match="threads is 0; expected a positive number"):
        load_engine(engine, threads=0)
    with pytest.raises(InputError, match="warm_up is -1 and rounds is 1"):
        benchmark(engine, INPUTS, warm_up=-1)
    with pytest.raises(InputError, match=r"none\.engine"):
        benchmark(tmp_path / "none.engine", INPUTS)
