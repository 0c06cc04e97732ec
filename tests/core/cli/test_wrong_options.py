"""Every option and argument of every command with bad strings: a documented exit code, in words, and no traceback."""

import json

import click
import pytest

from embedl_deploy.cli import commands_engine, commands_onnx, onnx_options
from embedl_deploy.cli.exit_codes import ExitCode
from embedl_deploy.cli.program import program
from embedl_deploy.errors import CompileError, ExportError, InputError
from support.cli_folder import small_onnx
from support.engines import layer, report

BAD = ["", "no", "-1", "0", "nan", "99999999999999999999", "a,b=c", "x" * 300, "9" * 5000, "é\u202e\x1b["]
MODEL = ("nets:Mlp", "-i", "1,16", "-b", "tensorrt")
#: Arguments with which each command does its work.
GOOD = {
    "backends": (),
    "plan": MODEL,
    "transform": MODEL,
    "quantize": (*MODEL, "--samples", "1", "-o", "out.onnx"),
    "sensitivity": (*MODEL, "--samples", "1"),
    "deploy": (*MODEL, "--samples", "1", "--seconds", "0", "-o", "out"),
    "tune": (*MODEL, "--samples", "1", "--seconds", "0", "-o", "tuned.json"),
    "export": (*MODEL, "-o", "out.onnx"),
    "check": ("a.onnx", "-b", "tensorrt"),
    "compile": ("a.onnx", "-b", "tensorrt", "-o", "a.engine"),
    "report": ("a.json",),
    "compare": ("a.json", "a.json"),
    "run": ("a.json", "-b", "tensorrt"),
    "benchmark": ("a.json", "-b", "tensorrt"),
    "new-backend": ("acme",),
}
PARAMETERS = [
    (name, parameter)
    for name, command in program.commands.items()
    for parameter in command.params
    if not (isinstance(parameter, click.Option) and parameter.is_flag)
]


@pytest.fixture
def files(folder, monkeypatch):
    """Files to work on, and no work that takes long: what is asked of it has been read by then."""
    (folder / "a.onnx").write_bytes(small_onnx())
    (folder / "a.json").write_text(json.dumps(report(layer("a")).to_dict()))

    def stopped(kind):
        def stop(*args, **kwargs):
            raise kind("stopped here")

        return stop

    monkeypatch.setattr(onnx_options, "export_onnx", stopped(ExportError))
    monkeypatch.setattr(commands_engine, "compile_onnx", stopped(CompileError))
    monkeypatch.setattr(commands_onnx, "check", stopped(InputError))
    return folder


def test_every_command_has_arguments_here():
    assert set(program.commands) == set(GOOD)


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS, ids=lambda value: getattr(value, "name", value))
def test_bad_values(command, files, name, parameter):
    given = list(GOOD[name])
    wrong = []
    for value in BAD:
        if isinstance(parameter, click.Option):
            arguments = [*given, f"{parameter.opts[-1]}={value}"]
        else:
            arguments = ["--", value, *given[1:]] if not given[1:] or name == "compare" else [*given[1:], "--", value]
        done = command(name, *arguments)
        if done.code not in set(ExitCode) - {ExitCode.UNEXPECTED} or "Traceback" in done.err:
            wrong.append(f"{value!r} gives {done.code}: {done.err}")
        elif done.code and not (done.err + done.out).strip():
            wrong.append(f"{value!r} gives {done.code} without a word")
    assert not wrong, "\n".join(wrong)
