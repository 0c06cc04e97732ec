"""Timing an engine on hardware that runs it."""

import dataclasses

import pytest
import torch

from embedl_deploy.backend import get_backend
from embedl_deploy.compiling import benchmark, timing
from embedl_deploy.errors import CompileError, InputError, PluginError
from support.compilers import Acme


class Runs(Acme):
    """A compiler whose engines run, in times that are known."""

    def __init__(self, times):
        super().__init__()
        self.times, self.asked = times, None

    def benchmark(self, engine, inputs, seconds):
        self.asked = (engine.read_bytes(), [tuple(value.shape) for value in inputs], seconds)
        return self.times


@pytest.fixture
def engine(tmp_path):
    path = tmp_path / "net.engine"
    path.write_bytes(b"engine")
    return path


@pytest.fixture
def use_here(monkeypatch):
    def run(compiler):
        backend = dataclasses.replace(get_backend("sensai"), compilers=(compiler,))
        monkeypatch.setattr(timing, "get_backend", lambda name: backend)
        return compiler

    return run


def test_each_run_is_timed(use_here, engine):
    compiler = use_here(Runs([0.004, 0.001, 0.002, 0.003, 0.1]))
    found = benchmark(engine, [torch.zeros(2, 3)], seconds=0.5)
    assert compiler.asked == (b"engine", [(2, 3)], 0.5)
    assert found.seconds == (0.004, 0.001, 0.002, 0.003, 0.1)
    assert found.median == 0.003  # 1, 2, 3, 4 and 100 ms: the slow run does not count
    assert found.quartiles == (0.002, 0.004)
    assert str(found) == "3 ms (half of 5 runs took 2 to 4 ms)"


@pytest.mark.parametrize("times", [[], [0.1, -1.0], None, [1], (0.1,)])
def test_times_that_are_none_are_the_plugins_fault(use_here, engine, times):
    use_here(Runs(times))
    with pytest.raises(PluginError, match=r"from benchmark\(\); expected a list with the seconds of each run"):
        benchmark(engine, [torch.zeros(1)])


def test_what_cannot_be_timed_is_said(use_here, engine, tmp_path):
    use_here(Acme())
    with pytest.raises(CompileError, match=r"'acme' cannot run engines, so net\.engine was not timed"):
        benchmark(engine, [torch.zeros(1)])
    with pytest.raises(InputError, match=r"seconds is 0\.0; expected a positive number"):
        benchmark(engine, [torch.zeros(1)], seconds=0.0)
    with pytest.raises(InputError, match=r"none\.engine"):
        benchmark(tmp_path / "none.engine", [torch.zeros(1)])
