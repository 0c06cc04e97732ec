"""A wrapper that checks every answer of a backend's compiler, and names its distribution in errors."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import torch

from embedl_deploy.backend import (
    Backend,
    Build,
    CompileOptions,
    Compiler,
    CompilerRefusedError,
    LoadedEngine,
    Progress,
)
from embedl_deploy.compiling.apart import build_apart
from embedl_deploy.compiling.guarded_engine import GuardedEngine
from embedl_deploy.compiling.worker import EndedError, FailedError, NotApartError
from embedl_deploy.errors import PLUGIN_FAILURES, ArgumentError, EmbedlDeployError, InputError, PluginError
from embedl_deploy.validation.quoting import quoted

_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


class CompilerEndedError(CompilerRefusedError):
    """A compiler crashed on a file, or ended its process."""


class GuardedCompiler(Compiler):
    """Asks a compiler, and raises :class:`PluginError` for what it must not answer.

    Errors of embedl-deploy pass: they are how a compiler refuses a file or an option.

    Args:
        backend: The backend that brings it.
        compiler: The compiler.
    """

    def __init__(self, backend: Backend, compiler: Compiler) -> None:
        self.compiler = compiler
        self.name = compiler.name
        listed = (c for c in backend.contributions if c.kind == "compiler" and c.name == compiler.name)
        found = next(listed, None)  # of two with one name the first, as it is chosen
        self._plugin, self._origin = (backend.name, backend.origin) if found is None else (found.plugin, found.origin)
        suffix: object = compiler.suffix
        if not isinstance(suffix, str) or len(suffix) < 2 or not suffix.startswith(".") or "/" in suffix:
            self._fail(f"has the suffix {suffix!r}; expected the ending of a file's name, such as '.engine'")
        self.suffix = suffix
        float_type: object = compiler.float_type
        if not isinstance(float_type, torch.dtype) or not float_type.is_floating_point:
            self._fail(f"has the float_type {float_type!r}; expected a floating-point type, such as torch.float16")
        self.float_type = float_type

    def missing(self) -> str | None:
        """As :meth:`Compiler.missing`."""
        answer = self._ask("missing()", self.compiler.missing)
        self._require(answer is None or isinstance(answer, str), "missing()", answer, "text or None")
        return answer

    def describe(self) -> str:
        """As :meth:`Compiler.describe`."""
        answer = self._ask("describe()", self.compiler.describe)
        self._require(isinstance(answer, str), "describe()", answer, "its name and version as text")
        return answer

    def command(self, onnx: Path, engine: Path, options: CompileOptions) -> str | None:
        """As :meth:`Compiler.command`."""
        answer = self._ask("command()", lambda: self.compiler.command(onnx, engine, options))
        self._require(answer is None or isinstance(answer, str), "command()", answer, "a command line as text, or None")
        return answer

    def build(self, onnx: Path, options: CompileOptions, progress: Progress) -> Build:
        """As :meth:`Compiler.build`, in a process of its own.

        A compiler that cannot be sent to one is called here, without a timeout.

        Raises:
            CompilerEndedError: The compiler crashed, or ended its process.
            InputError: There is a timeout, and the compiler cannot be sent to a process that could be ended.
        """
        try:
            build = self._ask("build()", lambda: build_apart(self.compiler, onnx, options, progress), apart=True)
        except NotApartError as error:
            if options.timeout is not None:
                raise InputError(
                    f"timeout is {options.timeout!r}, but the compiler {self.name!r} (from {self._origin}) cannot be "
                    f"called in a process of its own, which is what can be ended: {error}. Define its class in a "
                    "module that can be imported, or leave the timeout out."
                ) from error
            _log.warning(
                "The compiler %r is called in this process, which ends if it crashes: %s. Define its class in a module "
                "that can be imported.",
                self.name,
                error,
            )
            build = self._ask("build()", lambda: self.compiler.build(onnx, options, progress))
        self._require(isinstance(build, Build), "build()", build, "a Build")
        return build

    def load(self, engine: Path, threads: int | None) -> LoadedEngine:
        """As :meth:`Compiler.load`; the answers of what is loaded are checked too."""
        loaded = self._ask("load()", lambda: self.compiler.load(engine, threads))
        self._require(isinstance(loaded, LoadedEngine), "load()", loaded, "a LoadedEngine")
        return GuardedEngine(loaded, self._ask, self._require)

    def _ask(self, method: str, call: Callable[[], _Answer], *, apart: bool = False) -> _Answer:
        try:
            return call()
        except ArgumentError as error:  # what its own code passes to a function or a class of ours
            self._fail(f"fails in {method}: {error}", error)
        except (EmbedlDeployError, NotApartError):
            raise
        except EndedError as error:
            raise CompilerEndedError(
                [f"nothing: {error}"],
                advice=f"If no rule explains it, report it to the authors of {self._origin}, with the file.",
            ) from error
        except FailedError as error:
            self._fail(f"fails in {method}: {error.args[0]}", error)
        except PLUGIN_FAILURES as error:  # a plugin's compiler may raise anything
            if apart and isinstance(error, SystemExit):
                raise  # it runs in another process; here it is a signal that ends the wait
            self._fail(f"fails in {method}: {type(error).__name__}: {error}", error)

    def _require(self, holds: bool, method: str, answer: object, expected: str) -> None:
        if not holds:
            self._fail(f"returns {quoted(answer)} from {method}; expected {expected}")

    def _fail(self, what: str, cause: BaseException | None = None) -> NoReturn:
        raise PluginError(
            f"Compiler {self.name!r} of backend {self._plugin!r} (from {self._origin}) {what.rstrip('.')}. "
            f"Repair or update {self._origin.split()[0]}, or compile with the vendor's own tool.",
            plugin=self._plugin,
            distribution=self._origin,
        ) from cause
