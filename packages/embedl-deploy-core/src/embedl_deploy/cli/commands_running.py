"""Commands that run engines on the hardware in this machine."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from embedl_deploy.backend import atomic_write
from embedl_deploy.cli.arrays import read_arrays
from embedl_deploy.cli.inputs import is_unnamed
from embedl_deploy.cli.memory import refuse_too_large
from embedl_deploy.cli.options import backend_option, output_option, resolve_backend, with_options
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.parameters import shapes_by_name
from embedl_deploy.cli.paths import FileCommand, InputFile
from embedl_deploy.compiling import Engine, benchmark_together, load_engine
from embedl_deploy.errors import InputError

#: What is computed with for each of the values of an input.
_BYTES = 8


def _engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is said of an engine and of its inputs."""
    return with_options(
        function,
        backend_option,
        click.option("--compiler", metavar="NAME", help="That built it; by default found by the file's name."),
        click.option("--threads", type=int, metavar="N", help="That it runs with; by default the runtime's choice."),
        click.option("--inputs", type=InputFile(), metavar="FILE", help="An .npz or .npy file; by default made up."),
        click.option(
            "--shape",
            "shapes",
            multiple=True,
            callback=shapes_by_name,
            metavar="NAME=SHAPE",
            help="Of an input that is made up and has open dimensions: x=8,3,224,224. Repeatable.",
        ),
    )


@click.command("run", cls=FileCommand)
@click.argument("engine", type=InputFile(), metavar="ENGINE")
@_engine_options
@output_option("Write the outputs to an .npz file, by name.")
@json_option
def run_command(
    output: Output,
    engine: Path,
    backend: str | None,
    compiler: str | None,
    threads: int | None,
    inputs: Path | None,
    shapes: Mapping[str, Sequence[int]],
    output_path: Path | None,
) -> None:
    """Run an engine once, on the hardware in this machine."""
    loaded = load_engine(engine, backend=resolve_backend(backend), compiler=compiler, threads=threads)
    found = loaded.run(_inputs(loaded, inputs, shapes))
    if output_path is not None:
        arrays = {name: value.numpy() for name, value in found.items()}
        with atomic_write(output_path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # names of arrays, not of options
        output.say(f"Wrote {output_path}")
    lines = [f"{loaded}", *(_described(name, value) for name, value in found.items())]
    sides = [{"name": name, "shape": list(value.shape), "dtype": _type(value)} for name, value in found.items()]
    output.result("\n".join(lines), {"outputs": sides})


@click.command("benchmark", cls=FileCommand)
@click.argument("engines", type=InputFile(), nargs=-1, required=True, metavar="ENGINE...")
@_engine_options
@click.option("--seconds", type=float, default=2.0, metavar="N", help="How long, for each engine; by default 2.")
@json_option
def benchmark_command(
    output: Output,
    engines: tuple[Path, ...],
    backend: str | None,
    compiler: str | None,
    threads: int | None,
    inputs: Path | None,
    shapes: Mapping[str, Sequence[int]],
    seconds: float,
) -> None:
    """Time engines on the hardware in this machine; several of one network take turns.

    The first is what the others are compared with.
    """
    how = {"backend": resolve_backend(backend), "compiler": compiler}
    loaded = [load_engine(engine, threads=threads, **how) for engine in engines]
    with output.working("timing"):
        timings = benchmark_together(loaded, _inputs(loaded[0], inputs, shapes), seconds=seconds)
    width = max(len(engine.name) for engine in engines)
    first = timings[0].median
    rows = list(zip(engines, timings, strict=True))
    lines = [
        f"{engine.name.ljust(width)}  {timing}{'' if timing is timings[0] else f', {first / timing.median:.2f} ×'}"
        for engine, timing in rows
    ]
    output.result("\n".join(lines), [{"engine": str(engine), **timing.to_dict()} for engine, timing in rows])


def _inputs(
    engine: Engine, file: Path | None, shapes: Mapping[str, Sequence[int]]
) -> dict[str, torch.Tensor] | list[torch.Tensor]:
    """What an engine is run with: the arrays of a file, or numbers that are made up."""
    if file is None:
        for name, shape in shapes.items():
            refuse_too_large(math.prod(shape) * _BYTES, f"--shape {name}", "Pass the shape of a usual input.")
        return engine.example_inputs(shapes)
    if shapes:
        raise InputError("--shape is for inputs that are made up; the arrays of --inputs have theirs.")
    arrays = read_arrays(file)
    try:
        tensors = {name: torch.from_numpy(np.asarray(array, order="C")) for name, array in arrays.items()}
    except (TypeError, ValueError) as error:  # no such type in torch, or bytes in the other order
        raise InputError(f"The arrays of {str(file)!r} cannot be inputs: {error}") from error
    return list(tensors.values()) if is_unnamed(arrays) else tensors


def _described(name: str, value: torch.Tensor) -> str:
    """An output in a line."""
    what = f"  {name}: {'×'.join(map(str, value.shape)) or 'a single number'} {_type(value)}"
    if not value.numel() or not value.is_floating_point():
        return what
    numbers = value.float()
    return f"{what}, from {numbers.min().item():.4g} to {numbers.max().item():.4g}"


def _type(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
