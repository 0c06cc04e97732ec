"""The group of all commands, and its entry point."""

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from types import FrameType
from typing import Any

import click
from click.exceptions import Exit

import embedl_deploy
from embedl_deploy.cli.commands_backends import backends_command
from embedl_deploy.cli.commands_deploy import deploy_command
from embedl_deploy.cli.commands_engine import compare_command, compile_command, report_command
from embedl_deploy.cli.commands_graph import plan_command, transform_command
from embedl_deploy.cli.commands_onnx import check_command, export_command
from embedl_deploy.cli.commands_quantize import quantize_command
from embedl_deploy.cli.commands_running import benchmark_command, run_command
from embedl_deploy.cli.commands_scaffold import new_backend_command
from embedl_deploy.cli.commands_sensitivity import sensitivity_command
from embedl_deploy.cli.commands_tuning import tune_command
from embedl_deploy.cli.exit_codes import MEANINGS, ExitCode, Terminated
from embedl_deploy.cli.failures import exit_code_of, report_failure

_NAME = "embedl-deploy"


class _Commands(click.Group):
    """Lists commands in the order of use, and exit codes below them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # of which click would make an exit code with another meaning
            raise Exit(ExitCode.BROKEN_PIPE) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), meaning) for code, meaning in MEANINGS.items()])


@click.group(
    cls=_Commands,
    commands=[
        deploy_command,
        backends_command,
        plan_command,
        transform_command,
        quantize_command,
        sensitivity_command,
        tune_command,
        export_command,
        check_command,
        compile_command,
        report_command,
        compare_command,
        run_command,
        benchmark_command,
        new_backend_command,
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 118},
)
@click.version_option(embedl_deploy.__version__, prog_name=_NAME)
def program() -> None:
    """Make PyTorch models fit the hardware that they are deployed on.

    A MODEL is "package.module:factory", where the factory may stand in the current folder, or a .pt2 file.
    """


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let a termination from outside unwind the stack, which removes half-written files."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Those after the program's name; by default the process's own.

    Returns:
        The exit code, one of :class:`ExitCode`.
    """
    # A process that ends looks for cycles among everything that torch and the exporter made, for a second, to free
    # what ends anyway.
    atexit.register(gc.freeze)
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # rather a "?" than no report where "×" cannot be shown
    try:
        with _ended_in_order():
            code = program.main(arguments, prog_name=_NAME, standalone_mode=False, obj=arguments)
        sys.stdout.flush()
        return int(code) if isinstance(code, int) else ExitCode.DONE
    except Terminated:
        _abandon_output()
        return ExitCode.TERMINATED
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every error has its words and its exit code
        with suppress(OSError):  # where there is nowhere left to say it, the exit code still does
            report_failure(error, as_json="--json" in arguments)
        _abandon_output()
        return exit_code_of(error)


def _abandon_output() -> None:
    """Flush stdout; where that fails, let nothing be said about it when the process ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
