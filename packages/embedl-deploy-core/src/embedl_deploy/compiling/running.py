"""Runs and times engines on the hardware in this machine."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from embedl_deploy.backend import LoadedEngine, get_backend
from embedl_deploy.compiling.choosing import choose_runner
from embedl_deploy.compiling.engine_inputs import example_inputs, fitted_inputs
from embedl_deploy.engine import EngineTensor, Timing
from embedl_deploy.errors import InputError
from embedl_deploy.files import existing_file
from embedl_deploy.validation.checked import checked

#: Inputs of an engine: one tensor, several in the engine's order, or by name.
Inputs = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]
#: Runs before those that are timed.
_WARM_UP = 3
#: At least so many runs are timed, however long they take.
_LEAST_RUNS = 3
#: Engines that are timed together take turns this often.
_ROUNDS = 20


@checked
@dataclass(frozen=True)
class Engine:
    """An engine on the hardware in this machine, ready to be run; :func:`load_engine` makes one.

    Attributes:
        path: Its file.
        loaded: What the backend's compiler made of it.
    """

    path: Path
    loaded: LoadedEngine = field(repr=False)

    @property
    def inputs(self) -> tuple[EngineTensor, ...]:
        """What it reads, in its order: name, shape with −1 for open dimensions, element type."""
        return self.loaded.inputs

    @property
    def outputs(self) -> tuple[EngineTensor, ...]:
        """What it writes, in its order."""
        return self.loaded.outputs

    @property
    def threads(self) -> int | None:
        """Threads that it runs with; ``None`` where the hardware has none to choose."""
        return self.loaded.threads

    @checked
    def run(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        """Run it once.

        Args:
            inputs: By name, or in the engine's order. Floating-point numbers are converted to the engine's type.

        Returns:
            The outputs by name, in the engine's order, on the CPU.

        Raises:
            InputError: Names, count, types or shapes of the inputs do not fit.
            CompileError: The engine fails.
        """
        found = self.loaded.run(self.fitted(inputs))
        return {tensor.name: value for tensor, value in zip(self.outputs, found, strict=True)}

    @checked
    def benchmark(self, inputs: Inputs, *, seconds: float = 1.0, warm_up: int = _WARM_UP) -> Timing:
        """Run it again and again, and time each run, without what moves inputs and outputs.

        Args:
            inputs: As for :meth:`run`.
            seconds: How long to go on; a few runs are timed in any case.
            warm_up: Runs before, which are not timed.

        Raises:
            InputError: The inputs do not fit, or a number is not positive.
            CompileError: The engine fails.
        """
        (timing,) = benchmark_together([self], inputs, seconds=seconds, warm_up=warm_up, rounds=1)
        return timing

    @checked
    def example_inputs(
        self, shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0
    ) -> dict[str, torch.Tensor]:
        """Inputs to run it with, by name: normal numbers; integers and booleans are ones, valid as an index or a mask.

        Args:
            shapes: Of inputs with open dimensions, by name; open dimensions of others are 1.
            seed: Of the random numbers.

        Raises:
            InputError: There is no such input, or its shape is another.
        """
        return example_inputs(self.path.name, self.inputs, shapes or {}, seed)

    @checked
    def fitted(self, inputs: Inputs) -> list[torch.Tensor]:
        """The inputs as the engine takes them, in its order.

        Raises:
            InputError: They do not fit.
        """
        return fitted_inputs(self.path.name, self.inputs, inputs)

    def __str__(self) -> str:
        sides = [", ".join(map(_described, side)) for side in (self.inputs, self.outputs)]
        return f"{self.path.name}: {sides[0]} → {sides[1]}"


def _described(tensor: EngineTensor) -> str:
    sizes = "×".join("?" if size < 0 else str(size) for size in tensor.shape)
    return f"{tensor.name} {sizes} {tensor.dtype}".replace("  ", " ")


@checked
def load_engine(
    path: str | os.PathLike[str],
    *,
    backend: str | None = None,
    compiler: str | None = None,
    threads: int | None = None,
) -> Engine:
    """Load an engine onto the hardware in this machine, to run it as often as is wanted.

    Args:
        path: What :func:`embedl_deploy.compile` wrote.
        backend: Name of the backend; by default the one in use, or the only one installed.
        compiler: Name of the compiler that built it; by default the first that is installed of those that write files
            of such a name.
        threads: Threads that it runs with; by default the runtime's choice.

    Raises:
        InputError: There is no such file, ``threads`` is not positive, or the hardware has none to choose.
        CompilerNotFoundError: No compiler is installed.
        CompileError: The engine cannot be run here.
    """
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads!r}; expected a positive number.")
    file = existing_file(path, "an engine, such as compile writes")
    return Engine(file, choose_runner(get_backend(backend), compiler, file).load(file, threads))


@checked
def run_engine(
    path: str | os.PathLike[str],
    inputs: Inputs,
    *,
    backend: str | None = None,
    compiler: str | None = None,
    threads: int | None = None,
) -> dict[str, torch.Tensor]:
    """Load an engine and run it once.

    Args:
        path: What :func:`embedl_deploy.compile` wrote.
        inputs: By name, or in the engine's order. Floating-point numbers are converted to the engine's type.
        backend: As for :func:`load_engine`.
        compiler: As for :func:`load_engine`.
        threads: As for :func:`load_engine`.

    Returns:
        The outputs by name, in the engine's order, on the CPU.

    Raises:
        InputError: There is no such file, or the inputs do not fit.
        CompilerNotFoundError: No compiler is installed.
        CompileError: The engine cannot be run here.
    """
    return load_engine(path, backend=backend, compiler=compiler, threads=threads).run(inputs)


@checked
def benchmark(
    path: str | os.PathLike[str],
    inputs: Inputs,
    *,
    backend: str | None = None,
    compiler: str | None = None,
    seconds: float = 1.0,
    warm_up: int = _WARM_UP,
    threads: int | None = None,
) -> Timing:
    """Run an engine on the hardware in this machine again and again, and time each run.

    Args:
        path: What :func:`embedl_deploy.compile` wrote.
        inputs: By name, or in the engine's order.
        backend: As for :func:`load_engine`.
        compiler: As for :func:`load_engine`.
        seconds: How long to go on; a few runs are timed in any case.
        warm_up: Runs before, which are not timed.
        threads: As for :func:`load_engine`.

    Raises:
        InputError: There is no such file, the inputs do not fit, or a number is not positive.
        CompilerNotFoundError: No compiler is installed.
        CompileError: The engine cannot be run here.
    """
    engine = load_engine(path, backend=backend, compiler=compiler, threads=threads)
    return engine.benchmark(inputs, seconds=seconds, warm_up=warm_up)


@checked
def benchmark_together(
    engines: Sequence[Engine],
    inputs: Inputs,
    *,
    seconds: float = 1.0,
    warm_up: int = _WARM_UP,
    rounds: int = _ROUNDS,
) -> tuple[Timing, ...]:
    """Time engines that are to be compared: they take turns, so what slows the machine down for a while slows all.

    Args:
        engines: Such as the one in float and the quantized one, with the same inputs.
        inputs: By name, or in the order of the engines.
        seconds: How long to go on, for each; a few runs of each are timed in any case.
        warm_up: Runs of each before, which are not timed.
        rounds: How often they take turns.

    Returns:
        One for each engine, in their order.

    Raises:
        InputError: The inputs do not fit an engine, or a number is not positive.
        CompileError: An engine fails.
    """
    if not 0 < seconds < math.inf:
        raise InputError(f"seconds is {seconds!r}; expected a positive number.")
    if warm_up < 0 or rounds < 1:
        raise InputError(f"warm_up is {warm_up!r} and rounds is {rounds!r}; expected 0 or more, and 1 or more.")
    given = [engine.fitted(inputs) for engine in engines]
    found: list[list[float]] = [[] for _ in engines]
    for engine, tensors in zip(engines, given, strict=True):
        for _ in range(warm_up):
            engine.loaded.run(tensors)
    least = math.ceil(_LEAST_RUNS / rounds)
    for _ in range(rounds):
        for engine, tensors, times in zip(engines, given, found, strict=True):
            times += engine.loaded.time(tensors, least, seconds / rounds)
    return tuple(Timing(tuple(times), engine.threads) for engine, times in zip(engines, found, strict=True))
