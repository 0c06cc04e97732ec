"""No output of a command is one of its inputs."""

import click
import numpy as np
import pytest

from embedl_deploy.cli.paths import FileCommand, InputFile, ModelSource, OutputFile
from embedl_deploy.cli.program import program
from support.cli_folder import small_onnx


def test_every_command_keeps_files_apart():
    for name, command in program.commands.items():
        assert isinstance(command, FileCommand), name
        for parameter in command.params:
            is_path = isinstance(parameter.type, (click.Path, click.File)) or parameter.name == "model"
            known = isinstance(parameter.type, (InputFile, OutputFile, ModelSource))
            assert known or not is_path or parameter.name == "directory", f"{name} {parameter.name}"


QUANTIZE = ("quantize", "nets:Net", "-b", "tensorrt", "-i", "1,3,16,16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*QUANTIZE, "--data", "x.npy", "-o", "x.npy"), "--output 'x.npy' is the same file as --data 'x.npy'"),
        ((*QUANTIZE, "--data", "x.npy", "-o", "link.npy"), "--output 'link.npy' is the same file as --data"),
        ((*QUANTIZE, "--data", "x.npy", "-o", "a.onnx", "--recipe", "x.npy"), "--recipe 'x.npy' is the same file as"),
        ((*QUANTIZE, "--data", "x.npy", "-o", "a.onnx", "--recipe", "a.onnx"), "'a.onnx' are one file"),
        ((*QUANTIZE, "--data", "x.npy", "-o", "a", "--recipe", "a.data"), "'a.data' are one file"),
        ((*QUANTIZE, "--data", ".", "-o", "x.npy"), "is a file of --data"),
        ((*QUANTIZE, "--data", "x.npy", "-o", "nets.py"), "--output 'nets.py' is the same file as MODEL 'nets.py'"),
        ((*QUANTIZE, "--data", "x.npy", "--state-dict", "w.pt", "-o", "w.pt"), "the same file as --state-dict"),
        (("export", "nets:Net", "--inputs", "x.npy", "-o", "x.npy"), "the same file as --inputs"),
        (("export", "nets:Net", "--inputs", "x.data", "-o", "x"), "--output 'x.data' is the same file as --inputs"),
        (("transform", "m.pt2", "-o", "m.pt2"), "the same file as MODEL"),
        (("plan", "nets:Net", "--plan", "p.json", "-o", "p.json"), "the same file as --plan"),
        (("compile", "net.onnx", "-o", "net.onnx"), "--output 'net.onnx' is the same file as FILE.onnx"),
        (("compile", "net.onnx", "--timing-cache", "net.onnx"), "--timing-cache 'net.onnx' is the same file as"),
        (("compile", "net.onnx", "-o", "a", "--timing-cache", "a.json"), "'a.json' are one file"),
    ],
)
def test_refused_before_anything_is_done(command, folder, arguments, message):
    np.save("x.npy", np.ones(1))
    (folder / "link.npy").symlink_to("x.npy")
    (folder / "net.onnx").write_bytes(small_onnx())
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    done = command(*arguments)
    assert done.code == 2 and message in done.err, done.err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
