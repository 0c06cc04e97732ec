"""The command that generates a new backend."""

import shlex
from pathlib import Path

import click

from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.paths import FileCommand
from embedl_deploy.scaffold import new_backend


@click.command("new-backend", cls=FileCommand)
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Where the folder embedl-deploy-NAME is made; by default here.",
)
@click.option("--title", metavar="TEXT", help="Name of the hardware, such as 'Acme Edge NPU'.")
@json_option
def new_backend_command(output: Output, name: str, directory: Path, title: str | None) -> None:
    """Write a backend of your own to start from.

    It is a complete distribution, embedl-deploy-NAME: it installs, is found as backend NAME, and passes its tests.
    """
    folder = new_backend(name, directory, title=title)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [
        f"Wrote {folder}, {len(files)} files",
        *(f"  {file}" for file in files),
        f"Install it, then run its tests: cd {shlex.quote(str(folder))} && pip install -e '.[test]' && pytest",
        "pytest without a path runs the conformance kit as well.",
    ]
    output.result("\n".join(lines), {"directory": str(folder), "backend": name, "files": files})
