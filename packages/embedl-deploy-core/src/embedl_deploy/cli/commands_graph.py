"""Commands about rewriting: which backends there are, what they would do to a model, and doing it."""

import io
import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

from embedl_deploy import TransformationResult
from embedl_deploy.backend import get_backend, list_backends
from embedl_deploy.cli.exit_codes import ExitCode
from embedl_deploy.cli.options import (
    Rewrites,
    Subject,
    backend_option,
    output_option,
    rewrite_options,
    subject_options,
)
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.parameters import tolerance
from embedl_deploy.cli.paths import FileCommand
from embedl_deploy.compiling.guarded import GuardedCompiler
from embedl_deploy.errors import BackendError, ExportError, InputError
from embedl_deploy.files import atomic_write
from embedl_deploy.graph.placement import describe_failed_module
from embedl_deploy.verify import Difference

_KINDS = {
    "conversion": "conversions",
    "fusion": "fusions",
    "policy": "policies",
    "rule": "rules",
    "compiler": "compilers",
    "device": "devices",
}


@click.command("backends", cls=FileCommand)
@click.option("-v", "--verbose", is_flag=True, help="Also what each backend brings, which takes loading all of it.")
@backend_option
@json_option
@click.pass_context
def backends_command(context: click.Context, output: Output, backend: str | None, verbose: bool) -> None:
    """List installed backends, and what is wrong with broken ones.

    Extensions of a backend are listed as BACKEND.EXTENSION. Exit code 1 if the one that is named with -b is broken.
    """
    statuses = list_backends()
    if backend is not None and backend not in statuses:
        raise InputError(f"No backend {backend!r} is installed; there are {', '.join(statuses) or 'none'}.")
    data: dict[str, dict[str, Any]] = {}
    lines = []
    for name, status in statuses.items():
        if backend is not None and backend not in (status.name, status.name.partition(".")[0]):
            continue
        is_extension = "." in status.name
        data[name] = {"origin": status.origin, "extension": is_extension, "error": status.error}
        data[name]["conflicts"] = list(status.conflicts)
        if verbose and status.usable and not is_extension:
            data[name].update(_contents(name, status.conflicts))
        lines += _lines(status.name, data[name])
    output.result("\n".join(lines) or "No backend is installed: pip install embedl-deploy-<target>.", data)
    if backend is not None and data[backend]["error"]:
        context.exit(ExitCode.NO)


def _contents(name: str, conflicts: Sequence[str]) -> dict[str, Any]:
    from embedl_deploy.export.prepare import SMALLEST_OPSET  # here: it imports quantization

    try:
        loaded = get_backend(name)
        compilers = {each.name: GuardedCompiler(loaded, each).missing() for each in loaded.compilers}
        conflicts = [*conflicts, *loaded.onnx_translation_conflicts(SMALLEST_OPSET)]
    except BackendError as error:  # each part loads, but they do not fit together, or a compiler's code fails
        return {"error": str(error)}
    return {
        "conflicts": conflicts,
        "title": loaded.info.title,
        "description": loaded.info.description,
        "extensions": list(loaded.extensions),
        "conversions": len(loaded.conversions),
        "fusions": len(loaded.fusions),
        "policies": list(loaded.policies),
        "check_rules": len(loaded.check_rules),
        "compilers": compilers,
        "devices": [device.name for device in loaded.devices],
        "contributions": [asdict(contribution) for contribution in loaded.contributions],
    }


def _lines(name: str, entry: dict[str, Any]) -> list[str]:
    kind = "extension, " if entry["extension"] else ""
    lines = [f"{name} ({kind}{entry['origin']}){': broken' if entry['error'] else ''}"]
    if entry["error"]:
        return [*lines, f"  {entry['error']}"]
    lines += [f"  conflict: {conflict}" for conflict in entry["conflicts"]]
    if "title" in entry:
        lines.append(f"  {entry['title']}: {entry['description']}")
        lines.append(
            f"  {entry['conversions']} conversions, {entry['fusions']} fusions, {entry['check_rules']} rules for files"
        )
        for word, names in (("extended by", entry["extensions"]), ("policies", entry["policies"])):
            lines.append(f"  {word}: {', '.join(names) or 'none'}")
        if entry["devices"]:
            lines.append(f"  devices for estimates: {', '.join(entry['devices'])}")
        for compiler, missing in entry["compilers"].items():
            lines.append(f"  compiler {compiler}: {'ready' if missing is None else missing}")
        lines += _contribution_lines(entry["contributions"])
    return lines


def _contribution_lines(contributions: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """What each distribution brings, kind by kind, in the order in which it is tried."""
    shipped: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in contributions:
        by_kind = shipped.setdefault((row["plugin"], row["origin"]), {})
        by_kind.setdefault(_KINDS.get(row["kind"], row["kind"]), []).append(row["name"])
    for (plugin, origin), by_kind in shipped.items():
        yield f"  {plugin} ({origin}) brings"
        for kind, names in by_kind.items():
            yield textwrap.fill(
                f"{kind}: {', '.join(names)}",
                118,
                initial_indent=" " * 4,
                subsequent_indent=" " * 6,
                break_on_hyphens=False,
            )


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
        plan = rewrites.planned(subject())
    text = plan.to_json()
    if output_path is not None:
        with atomic_write(output_path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        output.say(f"Wrote {output_path}")
    answers = {name: plan.why_not(name) for name in why_not}
    output.result(_with_answers(plan, answers), {**json.loads(text), **({"why_not": answers} if answers else {})})


def _with_answers(report: object, answers: Mapping[str, Sequence[str]]) -> str:
    return "\n".join((str(report), *(line for lines in answers.values() for line in lines)))


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
        result = rewrites.carried_out(loaded)
        difference = None if loaded.args is None else result.verify(*loaded.args, **loaded.kwargs)
    agrees = difference is None or difference.max_rel <= tolerance
    if output_path is not None and agrees:
        with output.working("writing"):
            _write_program(result, loaded, output_path)
        output.say(f"Wrote {output_path}")
    answers = {name: result.report.why_not(name) for name in why_not}
    output.result(
        f"{_with_answers(result.report, answers)}\n{_verdict(difference, tolerance)}",
        {
            **result.report,
            "difference": None if difference is None else difference._asdict(),
            "agrees": agrees,
            **({"why_not": answers} if answers else {}),
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
