"""Chooses one of a backend's compilers."""

from pathlib import Path

from embedl_deploy.backend import Backend, CompileOptions, Compiler
from embedl_deploy.compiling.guarded import GuardedCompiler
from embedl_deploy.errors import CompilerNotFoundError, InputError


def choose_compiler(
    backend: Backend, name: str | None, onnx: Path, engine: Path | None, options: CompileOptions
) -> Compiler:
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
    compilers = backend.compilers
    if name is not None:
        compilers = tuple(compiler for compiler in compilers if compiler.name == name)
        if not compilers:
            known = ", ".join(compiler.name for compiler in backend.compilers)
            raise InputError(f"compiler is {name!r}; backend {backend.name!r} has {known}.")
    checked = [GuardedCompiler(backend, compiler) for compiler in compilers]
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
