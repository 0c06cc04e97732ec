"""Compilers in a process of their own: what they may do without taking this one along."""

import contextlib
import logging
import os
import pickle
import time
from pathlib import Path

import pytest

from embedl_deploy import compile  # noqa: A004
from embedl_deploy.backend import Build, CompileOptions, CompilerRefusedError
from embedl_deploy.compiling.apart import build_apart
from embedl_deploy.compiling.worker import FailedError
from embedl_deploy.errors import CaptureError, CompileError, InputError, PluginError
from support.bad_compilers import Bad
from support.compilers import Acme

pytestmark = pytest.mark.usefixtures("apart")


def build(file, target, timeout=None, steps=None):
    """Compile; the number of its process is the one step that it tells."""
    told = [] if steps is None else steps
    return build_apart(Bad(), file, CompileOptions(target=target, timeout=timeout), lambda *step: told.append(step))


def test_it_builds_elsewhere_and_its_words_arrive(file, caplog, capfd):
    steps = []
    with caplog.at_level(logging.WARNING):
        built = build(file, "well", steps=steps)
    assert isinstance(built, Build) and built.engine == b"engine" and len(built.layers) > 2
    assert steps[0][1] != os.getpid() and steps[1:] == [("building", 1, 1)]
    assert caplog.record_tuples == [("acme", logging.WARNING, "mind the log")]
    out, err = capfd.readouterr()
    assert out == "" and "words of the compiler" in err and "words of its library" in err


def test_the_process_is_kept_and_replaced_when_it_ends(file):
    steps = []
    for _ in range(2):
        build(file, "well", steps=steps)
    with pytest.raises(FailedError, match="RuntimeError: no licence"):
        build(file, "fail", steps=steps)
    build(file, "well", steps=steps)
    processes = {number for step, number, _ in steps if step == "process"}
    assert len(processes) == 1


@pytest.mark.parametrize(
    ("target", "words"),
    [("leave", "it ended its process with exit code 3"), ("crash", r"it crashed \(SIGSEGV\)")],
)
def test_a_process_that_ends(use, file, tmp_path, target, words):
    use(Bad())
    with pytest.raises(
        CompileError, match=rf"(?s)acme 1\.0 crashes on net\.onnx.*It says: nothing: {words}.*authors of"
    ):
        compile(file, tmp_path / "e", target=target)
    assert list(tmp_path.iterdir()) == []


def test_a_timeout_ends_all_that_the_compiler_has_started(use, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use(Bad())
    start = time.monotonic()
    with pytest.raises(CompileError, match=r"Compiling net\.onnx took longer than its timeout of 0\.5 s"):
        compile(file, tmp_path / "e", target="hang", timeout=0.5)
    assert time.monotonic() - start < 55, "it sleeps for a minute"
    grandchild = int(Path("grandchild").read_text())
    for _ in range(100):
        if not _runs(grandchild):
            break
        time.sleep(0.05)
    assert not _runs(grandchild)
    assert not (tmp_path / "e").exists()


def _runs(process):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_errors_arrive_whole(use, file, tmp_path):
    with pytest.raises(CompilerRefusedError) as refused:
        build(file, "refuse")
    assert (refused.value.messages, refused.value.nodes) == (("too wide", "too deep"), ("node",))
    assert refused.value.advice == "Cut it."
    with pytest.raises(PluginError, match=r"^broken$") as blamed:
        build(file, "blame")
    assert blamed.value.distribution == "acme 1.0"
    use(Bad())
    for target, words in (("fail", "RuntimeError: no licence"), ("exit", "SystemExit: 3")):
        with pytest.raises(PluginError, match=rf"fails in build\(\): {words}\. Repair or update"):
            compile(file, tmp_path / "e", target=target)


def test_a_class_that_cannot_be_imported_is_called_here(use, file, tmp_path, caplog):
    class Local(Acme):
        pass

    use(Local())
    assert compile(file, tmp_path / "e").path.read_bytes() == b"engine"
    assert "is called in this process, which ends if it crashes: it cannot be pickled" in caplog.text
    with pytest.raises(InputError, match=r"timeout is 5, but the compiler 'acme' .* cannot be called in a process of"):
        compile(file, tmp_path / "e", timeout=5)


def test_errors_can_be_pickled():
    for error in (
        CaptureError("a", module_path="b", source="c"),
        PluginError("a", plugin="b", distribution="c"),
        CompileError("a", node="n", rules=("r",)),
        CompilerRefusedError(["a", "b"], ["n"], "advice"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
