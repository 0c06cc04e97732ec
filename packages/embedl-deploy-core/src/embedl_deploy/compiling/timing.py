"""Times an engine on the hardware."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from embedl_deploy.backend import CompileOptions, get_backend
from embedl_deploy.compiling.choosing import choose_compiler
from embedl_deploy.engine import Timing
from embedl_deploy.errors import InputError
from embedl_deploy.files import existing_file
from embedl_deploy.validation.checked import checked


@checked
def benchmark(
    engine: str | os.PathLike[str],
    inputs: Sequence[torch.Tensor],
    *,
    backend: str | None = None,
    compiler: str | None = None,
    seconds: float = 1.0,
) -> Timing:
    """Run an engine on the hardware in this machine again and again, and time each run.

    Args:
        engine: What :func:`embedl_deploy.compile` wrote.
        inputs: One tensor per input of the engine, in its order.
        backend: Name of the backend; by default the one in use, or the only one installed.
        compiler: Name of the compiler that built it; by default the first that is installed.
        seconds: How long to go on, after a few runs that are not timed.

    Raises:
        InputError: There is no such file, or ``seconds`` is not positive.
        CompilerNotFoundError: No compiler is installed.
        CompileError: The engine cannot be run here.
    """
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds is {seconds!r}; expected a positive number.")
    path: Path = existing_file(engine, "an engine, such as compile writes")
    chosen = choose_compiler(get_backend(backend), compiler, path, path, CompileOptions())
    return Timing(tuple(chosen.benchmark(path, list(inputs), seconds)))
