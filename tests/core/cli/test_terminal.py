"""Commands on a terminal: colour and progress there, none with NO_COLOR, and what Ctrl-C does."""

import os
import pty
import signal
import sys
import time

import numpy as np

from support.cli_folder import left_behind


def on_terminal(folder, environment, *arguments, interrupt_at=None):
    """Run a command on a pseudo-terminal; exit code and everything that it showed.

    Args:
        interrupt_at: Words at which Ctrl-C is typed.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background is started with Ctrl-C switched off
        os.execve(sys.executable, [sys.executable, "-m", "embedl_deploy", *arguments], environment)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        shown += part
        if interrupt_at is not None and interrupt_at in shown:
            os.write(terminal, b"\x03")
            interrupt_at = None
    else:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode(errors="replace")


def test_reports_are_coloured_and_progress_is_shown(folder, environment):
    code, shown = on_terminal(folder, environment, "transform", "nets:Net", "-b", "tensorrt", "-i", "1,3,16,16")
    assert code == 0, shown
    assert "transforming" in shown, "a spinner while it works"
    assert "transforming: looking for patterns" in shown, "with the stage that it is at"
    assert "\x1b[1mNet for NVIDIA TensorRT" in shown, "the first line is bold"


def test_no_color(folder, environment):
    code, shown = on_terminal(folder, {**environment, "NO_COLOR": "1"}, "check", "nope.onnx", "-b", "tensorrt")
    assert code == 2
    assert "error: 'nope.onnx' is not there" in shown
    assert "\x1b[1m" not in shown and "\x1b[31m" not in shown


def test_ctrl_c_while_calibrating(folder, environment):
    np.save(folder / "much.npy", np.zeros((4000, 3, 32, 32), dtype=np.float32))
    command = ("quantize", "nets:Deep", "-b", "tensorrt", "-i", "1,3,32,32", "--data", "much.npy", "-o", "out.onnx")
    code, shown = on_terminal(folder, environment, *command, interrupt_at=b"calibrating")
    assert code == 130, shown
    assert "Interrupted. No file was left half written." in shown
    assert "Traceback" not in shown
    assert left_behind(folder) == ["much.npy"]
