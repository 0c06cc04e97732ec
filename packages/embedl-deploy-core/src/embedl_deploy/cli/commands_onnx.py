"""The commands ``export`` and ``check``."""

from collections.abc import Callable
from pathlib import Path

import click

from embedl_deploy import check
from embedl_deploy.cli.exit_codes import ExitCode
from embedl_deploy.cli.onnx_options import OnnxFile, export_data, float32_data, float32_text, onnx_options
from embedl_deploy.cli.options import (
    Rewrites,
    Subject,
    backend_option,
    resolve_backend,
    rewrite_options,
    subject_options,
)
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.paths import FileCommand, InputFile


@click.command("export", cls=FileCommand)
@subject_options
@rewrite_options
@onnx_options
@json_option
def export_command(output: Output, subject: Callable[[], Subject], rewrites: Rewrites, file: OnnxFile) -> None:
    """Rewrite a model and write it as an ONNX file in float."""
    with output.working("transforming"):
        loaded = subject()
        loaded.needed_inputs("Exporting")
        result = rewrites.transform(loaded)
    with output.working("exporting"):
        model = file.fitted(result.model, loaded)
        exported = file.written(model, loaded)
    text = f"{result.report['applied_count']} rewrites applied\n{float32_text(model)}{exported}"
    data = {"transformation": dict(result.report), **float32_data(model), "export": export_data(exported)}
    output.result(text, data)


@click.command("check", cls=FileCommand)
@click.argument("onnx", type=InputFile(), metavar="FILE.onnx")
@backend_option
@json_option
@click.pass_context
def check_command(context: click.Context, output: Output, onnx: Path, backend: str | None) -> None:
    """Ask whether a compiler will take an ONNX file.

    Prints the places that break its rules and how to fix them; exit code 1 if there are errors, or if a rule that
    finds errors fails.
    """
    with output.working("checking"):
        report = check(onnx, backend=resolve_backend(backend))
    output.result(report, report.to_dict())
    if not report.ok:
        context.exit(ExitCode.NO)
