"""The command that measures which layers lose accuracy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from embedl_deploy.cli.data import Batches
from embedl_deploy.cli.options import Rewrites, Subject, rewrite_options, subject_options
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.paths import FileCommand, OutputFile
from embedl_deploy.cli.quantization_options import Quantization, data_options, quantization_options, transform_for_data


@click.command("sensitivity", cls=FileCommand)
@subject_options
@data_options
@rewrite_options
@quantization_options
@click.option("--metric", type=click.Choice(["sqnr", "kl"]), default="sqnr", help="Of the outputs; by default sqnr.")
@click.option("--probes", type=click.IntRange(1), default=1, metavar="N", help="Backward passes for each batch.")
@click.option("--state", type=OutputFile(), metavar="FILE", help="Keeps what was measured, to go on from there.")
@json_option
def sensitivity_command(
    output: Output,
    subject: Callable[[], Subject],
    data: Callable[[Subject], Batches],
    rewrites: Rewrites,
    quantization: Quantization,
    metric: Any,
    probes: int,
    state: Path | None,
) -> None:
    """Measure what quantizing each layer costs the outputs.

    Prints the layers, the worst first, with what each costs alone and what leaving it in float gives back.
    """
    from embedl_deploy.sensitivity import sensitivity

    _, batches, result = transform_for_data(output, subject, rewrites, data)
    quantized = quantization.quantized(result, batches)
    report = sensitivity(quantized, batches, metric=metric, probes=probes, state=state)
    output.result(report, report.to_dict())
