"""The output of a command: results on stdout as text or JSON, everything else on stderr."""

import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any, TextIO

import click

from embedl_deploy.cli.wording import for_the_shell
from embedl_deploy.json_text import finite
from embedl_deploy.logs import stages_told

_COLOURS = {"error": "red", "warning": "yellow"}


def uses_colour(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless ``NO_COLOR`` is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Output:
    """What a command says.

    With ``as_json``, whatever else prints in the meantime, such as the user's model, is sent to stderr: stdout holds
    one JSON value and nothing else.

    Attributes:
        as_json: Whether the result is printed as JSON.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._results = sys.stdout

    def result(self, text: object, data: Any) -> None:
        """Print the result: ``text`` for people, ``data`` for programs."""
        colour = uses_colour(self._results)
        if self.as_json:
            click.echo(json.dumps(finite(data), indent=2), file=self._results)
        else:
            said = for_the_shell(str(text))
            click.echo(_painted(said) if colour else said, file=self._results, color=colour)

    def say(self, message: str) -> None:
        """Print a message that is not the result."""
        click.echo(message, err=True, color=uses_colour(sys.stderr))

    @contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show on a terminal that something takes its time, and which stage it is at; nothing elsewhere."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console  # here, because it takes time to import

        shown = Console(stderr=True).status(what)
        with shown, stages_told(lambda stage: shown.update(f"{what}: {stage}")):
            yield


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option ``--json`` and the parameter ``output``."""

    @functools.wraps(function)
    def run(*, as_json: bool, **rest: Any) -> Any:
        output = Output(as_json)
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            return function(output=output, **rest)

    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")(run)


def _painted(text: str) -> str:
    """A report with its first line bold and the severities at the start of lines in colour."""
    first, *rest = text.split("\n")
    lines = [click.style(first, bold=True)]
    for line in rest:
        word = re.match(r"(error|warning)\b", line)
        lines.append(click.style(word[0], fg=_COLOURS[word[0]]) + line[word.end() :] if word else line)
    return "\n".join(lines)
