"""Compilers that hang, crash, end their process, print and log, in a module that another process can import."""

import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

from embedl_deploy.backend import CompilerRefusedError
from embedl_deploy.errors import PluginError
from support.compilers import Acme


class Bad(Acme):
    """Does what the target says, then compiles."""

    def build(self, onnx, options, progress):
        getattr(self, options.target)()
        progress("process", os.getpid(), 0)
        return super().build(onnx, options, progress)

    def well(self):
        sys.stdout.write("words of the compiler\n")
        os.write(1, b"words of its library")
        logging.getLogger("acme").warning("mind %s", "the log")

    def hang(self):
        Path("grandchild").write_text(str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid))
        time.sleep(60)

    def leave(self):
        os._exit(3)

    def exit(self):
        sys.exit(3)

    def crash(self):
        os.kill(os.getpid(), signal.SIGSEGV)

    def fail(self):
        raise RuntimeError("no licence")

    def refuse(self):
        raise CompilerRefusedError(["too wide", "too deep"], ["node"], "Cut it.")

    def blame(self):
        raise PluginError("broken", plugin="acme", distribution="acme 1.0")

    def warn(self):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
