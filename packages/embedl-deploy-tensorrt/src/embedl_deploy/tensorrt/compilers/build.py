"""Builds engines with the API that TensorRT and TensorRT for RTX share: parse, configure, build."""

import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from embedl_deploy.backend import CompileOptions, CompilerRefusedError, Progress, atomic_write
from embedl_deploy.errors import InputError
from embedl_deploy.tensorrt.compilers.advice import advice_on

#: A node's name in a message: in quotes, in brackets, or after a word that announces it.
_NAMED = (re.compile(r"\[ONNX Layer: ([^\]]+)\]"), re.compile(r"(?:node|layer|name:)\s+['\"\[]?([\w./:-]+)", re.I))


@dataclass
class Log:
    """What TensorRT said, by severity."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)


class _Signals:
    """Signals that ask this process to end, kept until the build has ended, which they do after its next step.

    An exception must not pass through the compiler's own frames.
    """

    def __init__(self) -> None:
        self.kept: list[int] = []

    def __enter__(self) -> "_Signals":
        is_main = threading.current_thread() is threading.main_thread()  # they reach no other
        numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        self._before = {number: signal.signal(number, self._keep) for number in numbers}
        return self

    def _keep(self, number: int, _frame: FrameType | None) -> None:
        self.kept.append(number)

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.kept:
            signal.raise_signal(self.kept[0])


@dataclass(frozen=True)
class Built:
    """A serialized engine and what was said while it was made."""

    engine: bytes
    log: Log
    seconds: float


def make_logger(trt: Any, log: Log) -> Any:
    """A logger of TensorRT's that keeps everything."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the module has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                log.errors.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                log.warnings.append(message)
            else:
                log.details.append(message)

    return Logger()


def make_monitor(trt: Any, signals: _Signals, progress: Progress) -> Any:
    """A progress monitor of TensorRT's: it is asked after each step whether to continue."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self.steps.get(phase_name, step + 1))
            return not signals.kept

        def phase_finish(self, phase_name: str) -> None:
            progress(phase_name, self.steps.get(phase_name, 1), self.steps.get(phase_name, 1))

    return Monitor()


def build_engine(
    trt: Any,
    onnx: Path,
    options: CompileOptions,
    progress: Progress,
    *,
    network_flags: int,
    configure: Callable[[Any], None] = lambda config: None,
) -> Built:
    """Parse and build.

    Args:
        trt: The Python module of the compiler.
        onnx: The file.
        options: What was asked for; a timeout is kept by whoever called.
        progress: Called as the build continues.
        network_flags: Flags for ``create_network``.
        configure: Called with the builder's configuration, for what the two compilers do not share.

    Raises:
        CompilerRefusedError: The parser or the builder does not take the file.
        InputError: An option does not fit.
    """
    if options.threads is not None:
        raise InputError(f"threads is {options.threads}, but engines of TensorRT run on a GPU; leave the option out.")
    log = Log()
    logger = make_logger(trt, log)
    builder = trt.Builder(logger)
    network = builder.create_network(network_flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        messages = [_parser_error(error) for error in errors] or log.errors
        raise CompilerRefusedError(messages, [error.node_name() for error in errors], advice_on(messages))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.refit or options.strip_weights:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options.strip_weights:
        config.set_flag(trt.BuilderFlag.STRIP_PLAN)
    _add_profile(builder, config, network, options)
    cache = _load_timing_cache(config, options)
    configure(config)
    start = time.perf_counter()
    with _Signals() as signals:
        config.progress_monitor = make_monitor(trt, signals, progress)
        engine = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - start
    if engine is None:
        messages = log.errors or ["the builder returned no engine and no reason"]
        raise CompilerRefusedError(messages, _nodes_in(messages), advice_on(messages))
    if cache is not None and options.timing_cache is not None:
        with atomic_write(options.timing_cache) as temporary:
            temporary.write_bytes(bytes(memoryview(config.get_timing_cache().serialize())))
    return Built(bytes(memoryview(engine)), log, seconds)


#: What stands in an example for an open size: the smallest, the usual and the largest.
_EXAMPLE_SIZES = (1, 8, 32)


def _add_profile(builder: Any, config: Any, network: Any, options: CompileOptions) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    open_inputs = [tensor.name for tensor in inputs if any(size < 0 for size in tensor.shape)]
    missing = [name for name in open_inputs if name not in options.shapes]
    if missing:
        given = next(tuple(tensor.shape) for tensor in inputs if tensor.name == missing[0])
        example = tuple(tuple(open_size if size < 0 else size for size in given) for open_size in _EXAMPLE_SIZES)
        raise InputError(
            f"The input(s) {', '.join(map(repr, missing))} have open dimensions. Pass their smallest, usual and "
            f"largest shapes, such as those that export_onnx gave, or for example shapes={{{missing[0]!r}: {example}}}."
        )
    if not open_inputs:
        return
    profile = builder.create_optimization_profile()
    for name in open_inputs:
        profile.set_shape(name, *(tuple(shape) for shape in options.shapes[name]))
    if config.add_optimization_profile(profile) < 0:
        raise InputError(f"shapes {dict(options.shapes)!r} do not fit the inputs {', '.join(open_inputs)}.")


def _load_timing_cache(config: Any, options: CompileOptions) -> Any:
    if options.timing_cache is None:
        return None
    known = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise InputError(
            f"timing_cache {str(options.timing_cache)!r} cannot be used by this compiler or for this device. "
            "Remove it, or name another file."
        )
    return cache


def _parser_error(error: Any) -> str:
    return f"{error.desc()} ({error.node_operator()}, {error.code()})"


def _nodes_in(messages: list[str]) -> list[str]:
    found: list[str] = []
    for message in messages:
        for pattern in _NAMED:
            found += pattern.findall(message)
    return list(dict.fromkeys(found))
