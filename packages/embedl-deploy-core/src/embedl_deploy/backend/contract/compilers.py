"""The interface of a compiler that a backend provides."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from embedl_deploy.backend.contract.running import LoadedEngine
from embedl_deploy.engine import EngineLayer, Timing
from embedl_deploy.errors import CompileError, EmbedlDeployError, InputError
from embedl_deploy.validation.checked import checked

#: Called with a step's name, how many parts of it are done, and how many there are.
Progress = Callable[[str, int, int], None]


@checked
@dataclass(frozen=True)
class CompileOptions:
    """The options of a compilation; a compiler refuses those that it does not support.

    Attributes:
        target: What to compile for, in the backend's words; ``None`` for the compiler's choice.
        shapes: For each input with open dimensions the smallest, the usual and the largest shape.
        workspace: Bytes of scratch memory that kernels may use; ``None`` for the compiler's default.
        timing_cache: File that keeps timings from one compilation to the next; made if it is not there.
        refit: Whether weights can be changed in the engine later.
        strip_weights: Whether the engine is written without the weights that can be put back by refitting.
        optimization_level: How hard the compiler tries, in its own numbers; ``None`` for its default.
        timeout: Seconds after which the compiler's process is ended; ``None`` for never.
        threads: Threads that the engine runs with where it is timed; ``None`` for the runtime's choice.

    Raises:
        InputError: A number is not positive.
    """

    target: str | None = None
    shapes: Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]] = field(default_factory=dict)
    workspace: int | None = None
    timing_cache: Path | None = None
    refit: bool = False
    strip_weights: bool = False
    optimization_level: int | None = None
    timeout: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("workspace", self.workspace), ("timeout", self.timeout), ("threads", self.threads)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value!r}; expected a positive number.")


@checked
@dataclass(frozen=True)
class Build:
    """The output of a compiler.

    Attributes:
        engine: The artifact, as it is written to a file.
        layers: What the compiler tells of it.
        target: What it was compiled for.
        seconds: How long it took.
        messages: Warnings.
        timing: Runs of the whole engine, where the compiler has timed some.
        shapes: The shapes that the compiler has chosen for inputs with open dimensions that the options do not name:
            times, bytes and operations are those at these shapes.
    """

    engine: bytes
    layers: tuple[EngineLayer, ...]
    target: str
    seconds: float
    messages: tuple[str, ...] = ()
    timing: Timing | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class CompilerRefusedError(EmbedlDeployError):
    """A compiler did not take a file: raised by :meth:`Compiler.build` with what the compiler said.

    Attributes:
        messages: The compiler's own words.
        nodes: Names of the ONNX nodes that it names, the culprit first.
        advice: What it means and what to do, where the backend knows the message.
    """

    def __init__(self, messages: Sequence[str], nodes: Sequence[str] = (), advice: str | None = None) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)
        self.nodes = tuple(nodes)
        self.advice = advice


class Compiler(ABC):
    """A compiler for a backend's hardware.

    Attributes:
        name: Under which it is chosen.
        suffix: Ending of the name of what it writes, where the user gives none.
        float_type: The floating-point type that its hardware is fastest in: what is not quantized has it where
            embedl-deploy exports by itself, as :func:`embedl_deploy.tuning.tune` does.
    """

    name: str
    suffix: str = ".engine"
    float_type: torch.dtype = torch.float16

    @abstractmethod
    def missing(self) -> str | None:
        """What has to be installed before it can be called, and how; ``None`` if it can be called."""

    @abstractmethod
    def describe(self) -> str:
        """Name and version, such as ``"Acme compiler 1.7"``; asked only where nothing is missing."""

    @abstractmethod
    def command(self, onnx: Path, engine: Path, options: CompileOptions) -> str | None:
        """The command line that does the same with the vendor's own tool; ``None`` where there is no such tool."""

    @abstractmethod
    def build(self, onnx: Path, options: CompileOptions, progress: Progress) -> Build:
        """Compile a file.

        It is called in a process of its own, to which the compiler is sent pickled: its class must be one that can be
        imported. What it prints goes to standard error, what it logs to the user's logging. The process is ended when
        ``options.timeout`` is over.

        Raises:
            CompilerRefusedError: The compiler does not take it.
            InputError: An option does not fit.
        """

    def load(self, engine: Path, threads: int | None) -> LoadedEngine:
        """Load an engine onto the hardware in this machine, to run it.

        It is called in the user's process.

        Args:
            engine: The file.
            threads: Threads that it is to run with; ``None`` for the runtime's choice.

        Raises:
            CompileError: It cannot be run here.
            InputError: Threads were asked for, and there are none to choose.
        """
        raise CompileError(f"The compiler {self.name!r} cannot run engines, so {engine.name} was not run.")
