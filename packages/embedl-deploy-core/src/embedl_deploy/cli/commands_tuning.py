"""The command that searches where to quantize."""

from collections.abc import Callable
from pathlib import Path

import click

from embedl_deploy.cli.data import Batches
from embedl_deploy.cli.options import Rewrites, Subject, output_option, rewrite_options, subject_options
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.paths import FileCommand, OutputFile
from embedl_deploy.cli.quantization_options import (
    PRECISIONS,
    Quantization,
    data_options,
    quantization_options,
    transform_for_data,
)
from embedl_deploy.files import write_text
from embedl_deploy.numerics import Precision


@click.command("tune", cls=FileCommand)
@subject_options
@data_options
@rewrite_options
@quantization_options
@click.option("--target", metavar="NAME", help="What to compile for, in the backend's words, such as an architecture.")
@click.option("--compiler", metavar="NAME", help="By default the first that is installed; see `backends -v`.")
@click.option(
    "--objective",
    default="activation_bytes",
    metavar="NAME",
    help="What to make smaller: activation_bytes (the default), kernels, engine_bytes, latency, or estimate:DEVICE.",
)
@click.option("--threads", type=int, metavar="N", help="Threads that engines are timed with.")
@click.option("--keep", type=float, metavar="DB", help="Least signal to noise ratio of the outputs; by default any.")
@click.option("--seconds", type=click.FloatRange(0.0), default=600.0, metavar="N", help="When to stop; by default 600.")
@click.option("--state", type=OutputFile(), metavar="FILE", help="Keeps what was built, to go on from there.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="A number format to choose from beside --precision; by default those that the target computes in. Repeatable.",
)
@click.option(
    "--plan-output", type=OutputFile(), metavar="FILE", help="Search rewrites as well, and write the plan, for --plan."
)
@output_option("Write the decisions as JSON, to review, change and pass to --decisions.", required=True)
@json_option
def tune_command(
    output: Output,
    subject: Callable[[], Subject],
    data: Callable[[Subject], Batches],
    rewrites: Rewrites,
    quantization: Quantization,
    target: str | None,
    compiler: str | None,
    threads: int | None,
    objective: str,
    keep: float | None,
    seconds: float,
    state: Path | None,
    formats: tuple[str, ...],
    plan_output: Path | None,
    output_path: Path,
) -> None:
    """Search where and to what to quantize, judged by the compiler's engines and by the accuracy.

    Prints what was tried. `quantize --decisions FILE` applies what was found.
    """
    from embedl_deploy.tuning import tune

    _, batches, result = transform_for_data(output, subject, rewrites, data)
    with output.working("tuning"):
        tuned = tune(
            result,
            batches,
            target=target,
            objective=objective,
            keep=keep,
            config=quantization.config(result),
            formats=[Precision[name.upper()] for name in formats] or None,
            rewrites=plan_output is not None,
            compiler=compiler,
            threads=threads,
            seconds=seconds,
            state=state,
            progress=False,
        )
    tuned.policy.save(output_path)
    if plan_output is not None:
        write_text(plan_output, tuned.plan)
    output.say(f"Wrote {' and '.join(str(path) for path in (output_path, plan_output) if path is not None)}")
    output.result(tuned, tuned.to_dict())
