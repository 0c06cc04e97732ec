"""What the operating system may do to a command: a full disk, no permission, a closed pipe, a termination."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.cli_folder import left_behind, small_onnx

TRANSFORM = ("transform", "nets:Net", "--model-arg", "width=128", "-b", "tensorrt", "-i", "1,3,16,16", "-o", "out.pt2")
EXPORT = ("export", "nets:Net", "--model-arg", "width=128", "-b", "tensorrt", "-i", "1,3,16,16", "-o", "out.onnx")


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C as in a terminal: what is started in the background by a shell ignores it, and so does all it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def full_after(size):
    """Files of the process cannot grow beyond ``size`` bytes: an error in the middle of writing, as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("command", [TRANSFORM, EXPORT], ids=["transform", "export"])
def test_full_disk(process, folder, command):
    done = process(*command, preexec_fn=full_after(100_000))
    assert done.returncode == 4, done.stderr
    assert "cannot be written: File too large. No partial file was left." in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert left_behind(folder) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_full_disk_under_the_output(process):
    with open("/dev/full", "w") as full:
        done = process("backends", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 4
    assert done.stderr.startswith("error: No space left on device.") and "Traceback" not in done.stderr


def test_reader_that_goes_away(process):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = process(
            "plan", "nets:Net", "-b", "tensorrt", capture_output=False, stdout=closed, stderr=subprocess.PIPE
        )
    assert (done.returncode, done.stderr) == (141, "")


INTERRUPTS = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    if not {swallows}:
        raise
raise ImportError("this is no torch")
"""


@pytest.fixture
def without_torch(folder, environment):
    """The environment with another torch, of that code."""

    def made(code):
        (folder / "torch.py").write_text(code)
        return {**environment, "PYTHONPATH": os.pathsep.join([str(folder), environment["PYTHONPATH"]])}

    return made


@pytest.mark.parametrize("swallows", [False, True])
def test_interruption_while_torch_is_imported(process, without_torch, swallows):
    done = process("plan", "nets:Net", env=without_torch(INTERRUPTS.format(swallows=swallows)))
    assert (done.returncode, done.stderr) == (130, "error: Interrupted. No file was left half written.\n")


def test_an_interruption_that_is_ignored_stays_ignored(process, without_torch):
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit(7)\n"
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    assert process("plan", "nets:Net", env=without_torch(code), **ignoring).returncode == 7


def test_interruption_while_a_model_is_imported(command, folder):
    (folder / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = command("plan", "slow:Net", "-b", "tensorrt")
    assert (done.code, done.err.strip()) == (130, "error: Interrupted. No file was left half written.")


def test_termination_while_compiling(process, folder, environment):
    (folder / "net.onnx").write_bytes(small_onnx())
    arguments = ("compile", "net.onnx", "-b", "acme", "--target", "slow", "-o", "net.engine")
    running = subprocess.Popen(
        [sys.executable, "-m", "embedl_deploy", *arguments], env=environment, cwd=folder, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 30
    while not (folder / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    _, words = running.communicate(timeout=30)
    assert running.returncode == 143
    assert b"Traceback" not in words
    assert left_behind(folder) == ["net.onnx", "started"]
