"""Turns errors into messages and exit codes."""

import errno
import json
import sys
import traceback
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from embedl_deploy.cli.exit_codes import ExitCode
from embedl_deploy.cli.output import uses_colour
from embedl_deploy.cli.wording import for_the_shell
from embedl_deploy.errors import BackendNotFoundError, EmbedlDeployError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code for an error."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return ExitCode.INTERRUPTED
    if isinstance(error, EmbedlDeployError) and not isinstance(error, OSError):
        # Errors about an argument are ValueErrors as well.
        return ExitCode.USAGE if isinstance(error, (ValueError, BackendNotFoundError)) else ExitCode.REFUSED
    if isinstance(error, click.ClickException):
        return ExitCode.USAGE
    if isinstance(error, BrokenPipeError):
        return ExitCode.BROKEN_PIPE
    return ExitCode.SYSTEM if isinstance(error, OSError) else ExitCode.UNEXPECTED


def report_failure(error: BaseException, *, as_json: bool) -> None:
    """Say what went wrong, on stderr, and with ``as_json`` as an object on stdout as well."""
    code = exit_code_of(error)
    if code is ExitCode.BROKEN_PIPE:
        return
    if isinstance(error, NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return
    message = _message(error, code)
    if code is ExitCode.UNEXPECTED:
        traceback.print_exception(error)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
    colour = uses_colour(sys.stderr)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True, color=colour)
    of_stdout = isinstance(error, OSError) and error.filename is None and not isinstance(error, EmbedlDeployError)
    if as_json and not of_stdout:
        plain = {"type": type(error).__name__, "message": message, "exit_code": int(code), **_details(error)}
        click.echo(json.dumps({"error": plain}, indent=2))


def _message(error: BaseException, code: ExitCode) -> str:
    if code is ExitCode.INTERRUPTED:
        return "Interrupted. No file was left half written."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and not isinstance(error, EmbedlDeployError):
        where = f" ({error.filename!r})" if error.filename is not None else ""
        advice = " Make room, or write to another place." if error.errno in _NO_SPACE else ""
        return f"{error.strerror or error}{where}. No file was left half written.{advice}"
    if code is ExitCode.UNEXPECTED:
        return (
            f"{type(error).__name__}: {error}. This should not happen. If the lines above lead into your model, its "
            "code raised it; otherwise please report them, with the command."
        )
    return for_the_shell(str(error))


def _details(error: BaseException) -> dict[str, Any]:
    """What an error carries beside its message, such as the node that a compiler refuses."""
    if not isinstance(error, EmbedlDeployError):
        return {}
    return {name: value for name, value in vars(error).items() if not name.startswith("_")}
