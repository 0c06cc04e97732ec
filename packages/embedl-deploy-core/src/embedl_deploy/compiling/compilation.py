"""The compile function: from an ONNX file to an engine and its report."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedl_deploy.artifact import check_weight_files, read_onnx, shapes_at
from embedl_deploy.backend import CompileOptions, CompilerRefusedError, Progress, get_backend
from embedl_deploy.compiling.choosing import choose_compiler
from embedl_deploy.compiling.float_layers import explain_float_layers
from embedl_deploy.compiling.refusal import explained
from embedl_deploy.compiling.sources import with_sources
from embedl_deploy.compiling.usual_sizes import with_usual_sizes
from embedl_deploy.engine import EngineReport, EngineTensor
from embedl_deploy.errors import InputError
from embedl_deploy.files import NamedFile, atomic_write, refuse_overwriting
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir

Shape = Sequence[int]


@checked
@dataclass(frozen=True)
class CompileResult:
    """A written engine.

    Attributes:
        path: The engine's file.
        report_path: The report's, JSON.
        report: What the compiler made of the model.
    """

    path: Path
    report_path: Path
    report: EngineReport

    def __str__(self) -> str:
        return str(self.report)


@checked
def compile(  # noqa: A001 - the user's word for it
    onnx_path: str | os.PathLike[str],
    engine_path: str | os.PathLike[str] | None = None,
    *,
    backend: str | None = None,
    compiler: str | None = None,
    target: str | None = None,
    shapes: Mapping[str, tuple[Shape, Shape, Shape]] | None = None,
    workspace: int | None = None,
    timing_cache: str | os.PathLike[str] | None = None,
    refit: bool = False,
    strip_weights: bool = False,
    optimization_level: int | None = None,
    timeout: float | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> CompileResult:
    """Compile an ONNX file for a backend's hardware, and report on every layer.

    The compiler runs in a process of its own: one that crashes, hangs or ends its process is an error here.

    The engine, and its report as JSON beside it (``<engine>.json``), are written whole or not at all.

    Args:
        onnx_path: The file, such as :func:`export_onnx` writes.
        engine_path: Where the engine goes; by default the ONNX file's name with the compiler's ending, such as
            ``.engine``.
        backend: Name of the backend; by default the chosen or only one.
        compiler: Name of the compiler, where a backend has several; by default the first that is installed.
        target: What to compile for, in the backend's words; by default the device in this machine, or the compiler's
            choice, which the report names.
        shapes: For each input with open dimensions its smallest, usual and largest shape.
        workspace: Bytes of scratch memory that kernels may use.
        timing_cache: File that keeps timings from one compilation to the next.
        refit: Make an engine whose weights can be changed later.
        strip_weights: Leave out the weights that refitting can put back.
        optimization_level: How hard the compiler tries, in its own numbers.
        timeout: Seconds after which the compiler's process is ended.
        threads: Threads that the engine runs with where the compiler times it; by default the runtime's choice. It is
            no property of the engine: :func:`embedl_deploy.compiling.benchmark` times it with any other number.
        progress: Show a progress bar, on a terminal.

    Raises:
        InputError: The file is not an ONNX model, a weight is not there, an option does not fit, or the engine, its
            report or the timing cache would overwrite the file or its weights.
        CompilerNotFoundError: No compiler is installed; says what to install, and the command line for elsewhere.
        CompileError: It refuses the file, or takes too long. The message names the ONNX node and the
            PyTorch module, and what mends it, as far as the compiler and the checker's rules tell.
        PluginError: The compiler's own code fails, or gives what is not a Build; says who ships it.
    """
    source = Path(onnx_path)
    model = read_onnx(source)
    chosen = get_backend(backend)
    options = CompileOptions(
        target=target,
        shapes=dict(shapes or {}),
        workspace=workspace,
        timing_cache=Path(timing_cache) if timing_cache is not None else None,
        refit=refit,
        strip_weights=strip_weights,
        optimization_level=optimization_level,
        timeout=timeout,
        threads=threads,
    )
    _check_options(options, [str(value.name) for value in model.graph.inputs])
    given = None if engine_path is None else _checked_path(Path(engine_path), source, model, options)
    builder = choose_compiler(chosen, compiler, source, given, options)
    path = _checked_path(source.with_suffix(builder.suffix), source, model, options) if given is None else given
    with _bar(progress) as advance:
        try:
            build = builder.build(source, options, advance)
        except CompilerRefusedError as refusal:
            raise explained(refusal, builder, chosen.name, source, model) from refusal
    usual = {**build.shapes, **{name: tuple(of_input[1]) for name, of_input in options.shapes.items()}}
    known = shapes_at(model, usual) if usual else {}
    report = EngineReport(
        model=source.name,
        compiler=builder.describe(),
        target=build.target,
        layers=with_usual_sizes(with_sources(build.layers, model, known), model, known),
        engine_bytes=len(build.engine),
        build_seconds=build.seconds,
        messages=build.messages,
        timing=build.timing,
        usual_inputs=tuple(_usually(value, usual) for value in model.graph.inputs if value.name in usual),
    )
    report = replace(report, float_layers=explain_float_layers(report, model))
    report_path = _report_path(path)
    with atomic_write(path) as temporary:
        temporary.write_bytes(build.engine)
        temporary.with_name(report_path.name).write_text(json.dumps(report.to_dict(), indent=1), encoding="utf-8")
    return CompileResult(path, report_path, report)


def _usually(value: "ir.Value", usual: Mapping[str, tuple[int, ...]]) -> EngineTensor:
    return EngineTensor(
        str(value.name), usual[str(value.name)], "" if value.dtype is None else value.dtype.numpy().name
    )


def _checked_path(path: Path, source: Path, model: "ir.Model", options: CompileOptions) -> Path:
    if path.is_dir() or not path.name:
        raise InputError(f"engine_path {os.fspath(path)!r} is a folder; expected the name of a file.")
    read = [NamedFile("onnx_path", source), *(NamedFile("weights", file) for file in check_weight_files(model))]
    written = [NamedFile("engine_path", path), NamedFile("its report", _report_path(path))]
    written += [] if options.timing_cache is None else [NamedFile("timing_cache", options.timing_cache)]
    refuse_overwriting(read, written)
    return path


def _report_path(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.json")


def _check_options(options: CompileOptions, inputs: Sequence[str]) -> None:
    for name, shapes in options.shapes.items():
        if name not in inputs:
            raise InputError(f"shapes names the input {name!r}, but the file's inputs are {', '.join(inputs)}.")
        if len(shapes) != 3 or len({len(shape) for shape in shapes}) != 1:
            raise InputError(
                f"shapes[{name!r}] is {shapes!r}; expected three shapes of one length: smallest, usual and largest."
            )
        if not all(0 < low <= usual <= high for low, usual, high in zip(*shapes, strict=True)):
            raise InputError(f"shapes[{name!r}] is {shapes!r}; expected sizes that grow from smallest to largest.")


@contextmanager
def _bar(wanted: bool) -> Iterator[Progress]:
    """A progress bar on a terminal, and nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda step, done, total: None
        return
    with Bar(console=console, transient=True) as bar:
        tasks: dict[str, object] = {}

        def advance(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done, total=total)  # type: ignore[arg-type]

        yield advance
