"""Commands about engines: compiling one, reading its report, comparing two."""

from pathlib import Path
from typing import Any

import click

from embedl_deploy import compile as compile_onnx
from embedl_deploy.backend import get_backend
from embedl_deploy.cli.options import backend_option, output_option, resolve_backend
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.page_files import PageFiles
from embedl_deploy.cli.parameters import count_of_bytes, shape_ranges
from embedl_deploy.cli.paths import FileCommand, InputFile, OutputFile
from embedl_deploy.engine import Device, EngineReport, compare, estimate
from embedl_deploy.errors import InputError


@click.command("compile", cls=FileCommand)
@click.argument("onnx", type=InputFile(), metavar="FILE.onnx")
@output_option("The engine; by default FILE.engine. Its report is written next to it, as JSON.", ".json")
@backend_option
@click.option("--compiler", metavar="NAME", help="By default the first that is installed; see `backends -v`.")
@click.option("--target", metavar="NAME", help="What to compile for, in the backend's words, such as an architecture.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    callback=shape_ranges,
    metavar="NAME=MIN/OPT/MAX",
    help="Shapes of an input with open dimensions: x=1,3,8,8/4,3,8,8/8,3,8,8. Repeatable.",
)
@click.option("--workspace", callback=count_of_bytes, metavar="BYTES", help="Scratch memory of kernels, such as 512M.")
@click.option("--timing-cache", type=OutputFile(), metavar="FILE", help="Kept timings.")
@click.option("--refit", is_flag=True, help="Make an engine whose weights can be changed later.")
@click.option("--strip-weights", is_flag=True, help="Leave out the weights that refitting can put back.")
@click.option("--optimization-level", type=int, metavar="N", help="How hard to try, in the compiler's numbers.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up after so long.")
@click.option("--threads", type=int, metavar="N", help="Threads that the engine runs with where it is timed.")
@click.option("--layers", is_flag=True, help="List every layer.")
@json_option
def compile_command(
    output: Output, onnx: Path, output_path: Path | None, layers: bool, backend: str | None, **options: Any
) -> None:
    """Compile an ONNX file, and say what became of every layer."""
    done = compile_onnx(onnx, output_path, backend=resolve_backend(backend), **options)
    output.say(f"Wrote {done.path} and {done.report_path}")
    output.result(
        done.report.table(layers=layers),
        {"engine": str(done.path), "report_path": str(done.report_path), "report": done.report.to_dict()},
    )


@click.command("report", cls=FileCommand)
@click.argument("file", type=InputFile(), metavar="FILE.json")
@click.option("--layers", is_flag=True, help="List every layer.")
@click.option("--module", metavar="PATH", help="What became of a PyTorch module and of those in it.")
@click.option("--estimate", "device", metavar="DEVICE", help="Least time on a device; see `backends -v`.")
@click.option("--html", "html", type=OutputFile(), metavar="FILE", help="Write a page; FILE.json may be any report.")
@click.option(
    "--with",
    "others",
    type=InputFile(),
    multiple=True,
    metavar="FILE.json",
    help="What else the page shows: JSON of other commands, or the engine to compare with. Repeatable.",
)
@click.option(
    "--command",
    "commands",
    multiple=True,
    metavar="TEXT",
    help="One that makes the run again, for the page. Repeatable.",
)
@click.option("--title", metavar="TEXT", help="Of the page.")
@backend_option
@json_option
def report_command(
    output: Output,
    file: Path,
    layers: bool,
    module: str | None,
    device: str | None,
    html: Path | None,
    others: tuple[Path, ...],
    commands: tuple[str, ...],
    title: str | None,
    backend: str | None,
) -> None:
    """Print the report that `compile` wrote beside an engine; or write a page about a whole run."""
    report: EngineReport | None
    data: dict[str, Any] = {}
    if html is None:
        if others or commands or title is not None:
            raise InputError("--with, --command and --title are for a page: say where it goes with --html FILE.")
        report = EngineReport.load(file)
    else:
        shown, report = PageFiles((file, *others), commands, title).written(html)
        output.say(f"Wrote {html}")
        data["page"] = {"path": str(html), "shows": shown}
        if report is None:
            if layers or module is not None or device is not None:
                raise InputError("--layers, --module and --estimate ask an engine's report, and none is given.")
            output.result(f"The page shows: {', '.join(shown)}.", data)
            return
    data["report"] = report.to_dict()
    texts = [report.table(layers=layers)]
    if module is not None:
        found = report.layers_of(module)
        if not found:
            raise InputError(f"No layer came from a module {module!r}; --layers lists the modules.")
        texts.append(f"Layers from {module}:")
        for layer in found:
            moved = (layer.bytes_read + layer.bytes_written) / 1e3
            texts.append(f"  {layer.kind.value} in {layer.precision}, {moved:.0f} kB: {layer.name}")
        data["module_layers"] = [layer.to_dict() for layer in found]
    if device is not None:
        guess = estimate(report, _device(device, backend))
        texts.append(str(guess))
        data["estimate"] = {
            "device": guess.device.name,
            "seconds": guess.seconds,
            "layers": [{"name": row.layer.name, "seconds": row.seconds} for row in guess.layers],
        }
    output.result("\n".join(texts), data)


def _device(name: str, backend: str | None) -> Device:
    devices = get_backend(resolve_backend(backend)).devices
    fitting = [d for d in devices if d.name.lower() == name.lower()] or [
        d for d in devices if name.lower() in d.name.lower()
    ]
    if len(fitting) != 1:
        known = ", ".join(d.name for d in fitting or devices) or "none"
        raise InputError(f"--estimate {name!r} names {len(fitting)} devices; expected one of: {known}.")
    return fitting[0]


@click.command("compare", cls=FileCommand)
@click.argument("first", type=InputFile(), metavar="FIRST.json")
@click.argument("second", type=InputFile(), metavar="SECOND.json")
@json_option
def compare_command(output: Output, first: Path, second: Path) -> None:
    """Compare two engines of one network, by their reports.

    FIRST is the reference, such as the FP16 engine of which SECOND is the INT8 version.
    """
    compared = compare(EngineReport.load(first), EngineReport.load(second))
    output.result(compared, compared.to_dict())
