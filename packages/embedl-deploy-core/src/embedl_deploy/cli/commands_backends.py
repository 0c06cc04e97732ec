"""The command that lists backends and their contributions."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from embedl_deploy.backend import get_backend, list_backends
from embedl_deploy.cli.exit_codes import ExitCode
from embedl_deploy.cli.options import backend_option
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.paths import FileCommand
from embedl_deploy.compiling.guarded import GuardedCompiler
from embedl_deploy.errors import BackendError, InputError

_KINDS = {
    "conversion": "conversions",
    "fusion": "fusions",
    "policy": "policies",
    "rule": "rules",
    "compiler": "compilers",
    "device": "devices",
}


@click.command("backends", cls=FileCommand)
@click.option("-v", "--verbose", is_flag=True, help="Also list what each backend contributes.")
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
