"""Chooses one of a backend's compilers."""

from pathlib import Path

from embedl_deploy.backend import Backend, CompileOptions
from embedl_deploy.compiling.guarded import GuardedCompiler
from embedl_deploy.errors import CompilerNotFoundError, InputError


def choose_compiler(
    backend: Backend, name: str | None, onnx: Path, engine: Path | None, options: CompileOptions
) -> GuardedCompiler:
    """The compiler that was asked for, or the first that is installed; its answers are checked.

    Raises:
        PluginError: A compiler's own code fails, or answers what it must not.
        InputError: The backend has no compiler of that name.
        CompilerNotFoundError: It, or every one, is not installed; says what to install, and the command for elsewhere.
    """
    if not backend.compilers:
        raise CompilerNotFoundError(
            f"Backend {backend.name!r} has no compiler. Compile {onnx.name} with the vendor's tool."
        )
    checked = _named(backend, name)
    missing = {compiler.name: compiler.missing() for compiler in checked}
    for compiler in checked:
        if missing[compiler.name] is None:
            return compiler
    lines = [f"  {name}: {what}" for name, what in missing.items()]
    calls = [compiler.command(onnx, engine or onnx.with_suffix(compiler.suffix), options) for compiler in checked]
    commands = [call for call in calls if call]
    if commands:
        lines.append(f"  Or compile on another machine: {commands[0]}")
    raise CompilerNotFoundError("\n".join([f"No installed compiler can compile {onnx.name}:", *lines]))


def choose_runner(backend: Backend, name: str | None, engine: Path) -> GuardedCompiler:
    """The compiler to run an engine with: the one that was asked for.

    By default the first that is installed of those that write files of such a name, or else of all.

    Raises:
        PluginError: A compiler's own code fails, or answers what it must not.
        InputError: The backend has no compiler of that name.
        CompilerNotFoundError: It, or every one, is not installed; says what to install.
    """
    if not backend.compilers:
        raise CompilerNotFoundError(f"Backend {backend.name!r} has no compiler that could run {engine.name}.")
    checked = sorted(_named(backend, name), key=lambda compiler: not engine.name.endswith(compiler.suffix))
    missing = {compiler.name: compiler.missing() for compiler in checked}
    for compiler in checked:
        if missing[compiler.name] is None:
            return compiler
    lines = [f"  {name}: {what}" for name, what in missing.items()]
    raise CompilerNotFoundError("\n".join([f"Nothing that is installed can run {engine.name}:", *lines]))


def _named(backend: Backend, name: str | None) -> list[GuardedCompiler]:
    """A backend's compilers, or the one of a name; their answers are checked."""
    compilers = [compiler for compiler in backend.compilers if name in (None, compiler.name)]
    if not compilers:
        known = ", ".join(compiler.name for compiler in backend.compilers)
        raise InputError(f"compiler is {name!r}; backend {backend.name!r} has {known}.")
    return [GuardedCompiler(backend, compiler) for compiler in compilers]
