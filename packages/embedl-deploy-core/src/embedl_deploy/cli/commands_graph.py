"""The commands ``plan`` and ``transform``."""

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from embedl_deploy import TransformationResult
from embedl_deploy.cli.exit_codes import ExitCode
from embedl_deploy.cli.options import Rewrites, Subject, output_option, rewrite_options, subject_options
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.parameters import tolerance
from embedl_deploy.cli.paths import FileCommand
from embedl_deploy.errors import ExportError
from embedl_deploy.files import atomic_write, write_text
from embedl_deploy.graph.placement import describe_failed_module
from embedl_deploy.plan.causes import Answer
from embedl_deploy.verify import Difference


def why_not_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--why-not``, as ``why_not``: the names that are asked about."""
    return click.option(
        "--why-not",
        multiple=True,
        metavar="NAME",
        help="Also say what takes a node or module, and why other patterns do not. Repeatable.",
    )(function)


@click.command("plan", cls=FileCommand)
@subject_options
@rewrite_options
@why_not_option
@output_option("Write the plan as JSON, to review, change and pass to --plan.")
@json_option
def plan_command(
    output: Output,
    subject: Callable[[], Subject],
    rewrites: Rewrites,
    why_not: Sequence[str],
    output_path: Path | None,
) -> None:
    """Show what would be rewritten in a model, without doing it."""
    with output.working("planning"):
        plan = rewrites.make_plan(subject())
    text = plan.to_json()
    if output_path is not None:
        write_text(output_path, text)
        output.say(f"Wrote {output_path}")
    answers = {name: plan.answers(name) for name in why_not}
    output.result(_with_answers(plan, answers), {**json.loads(text), **_answers_data(answers)})


def _with_answers(report: object, answers: Mapping[str, Sequence[Answer]]) -> str:
    return "\n".join((str(report), *(str(answer) for told in answers.values() for answer in told)))


def _answers_data(answers: Mapping[str, Sequence[Answer]]) -> dict[str, Any]:
    """The answers in words, and beside them, in the same order, as codes; nothing where nothing was asked."""
    if not answers:
        return {}
    return {
        "why_not": {name: [str(answer) for answer in told] for name, told in answers.items()},
        "why_not_causes": {name: [answer.to_dict() for answer in told] for name, told in answers.items()},
    }


@click.command("transform", cls=FileCommand)
@subject_options
@rewrite_options
@click.option(
    "--tolerance",
    type=float,
    callback=tolerance,
    default=1e-4,
    show_default=True,
    help="Largest difference of the outputs, relative to the largest output.",
)
@why_not_option
@output_option("Write the transformed model, a .pt2 file for torch.export.load.")
@json_option
@click.pass_context
def transform_command(
    context: click.Context,
    output: Output,
    subject: Callable[[], Subject],
    rewrites: Rewrites,
    tolerance: float,
    why_not: Sequence[str],
    output_path: Path | None,
) -> None:
    """Rewrite a model and compare the numbers.

    Prints what was rewritten and what was not, and why; exit code 1 if the outputs differ.
    """
    with output.working("transforming"):
        loaded = subject()
        if output_path is not None:
            loaded.needed_inputs("Writing the model")
        result = rewrites.transform(loaded)
        difference = None if loaded.args is None else result.verify(*loaded.args, **loaded.kwargs)
    agrees = difference is None or difference.max_rel <= tolerance
    if output_path is not None and agrees:
        with output.working("writing"):
            _write_program(result, loaded, output_path)
        output.say(f"Wrote {output_path}")
    answers = {name: result.report.answers(name) for name in why_not}
    output.result(
        f"{_with_answers(result.report, answers)}\n{_verdict(difference, tolerance)}",
        {
            **result.report,
            "difference": None if difference is None else difference._asdict(),
            "agrees": agrees,
            **_answers_data(answers),
        },
    )
    if not agrees:
        context.exit(ExitCode.NO)


def _verdict(difference: Difference | None, tolerance: float) -> str:
    if difference is None:
        return "Numbers: not compared; pass --input or --inputs."
    if difference.max_rel <= tolerance:
        return f"Numbers: {difference}"
    said = f"Numbers: {difference}, which is more than the {tolerance:g} that is accepted. Nothing was written."
    if math.isfinite(difference.max_abs):
        return said
    return (
        f"{said} Some are not finite on one side, as where a mask hides everything (for nn.MultiheadAttention True "
        "means hidden): pass inputs as the model gets them, --inputs FILE.npz."
    )


def _write_program(result: TransformationResult, subject: Subject, path: Path) -> None:
    try:
        program = torch.export.export(result.model, subject.needed_inputs("Writing the model"), subject.kwargs)
    except Exception as error:  # torch.export runs the model's own code and may raise anything
        first = (str(error).strip().splitlines() or ["no message"])[0]
        placed = describe_failed_module(error)
        raise ExportError(
            f"The transformed model cannot be exported by torch.export: {type(error).__name__}: {first}"
            + (f" (in {placed})" if placed else "")
        ) from error
    stream = io.BytesIO()  # where a disk is full, torch's own writer ends the process
    torch.export.save(program, stream)
    with atomic_write(path) as temporary:
        temporary.write_bytes(stream.getbuffer())
