"""Models by name: factories with arguments and weights, programs in files, and nothing unpickled unasked."""

import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from embedl_deploy.cli.models import ModelName, read_arguments
from embedl_deploy.errors import CaptureError, InputError


def load(name, arguments=(), **options):
    return ModelName(name, read_arguments(arguments), **options).load()


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_arguments_are_literals_or_words():
    texts = ["a=1", "b=[1, 2]", "c=None", "d=DEFAULT", "e='5'", "f=x=y", "g="]
    assert read_arguments(texts) == {"a": 1, "b": [1, 2], "c": None, "d": "DEFAULT", "e": "5", "f": "x=y", "g": ""}
    with pytest.raises(InputError, match=r"--model-arg 'width': expected name=value"):
        read_arguments(["width"])


def test_factories_from_the_current_folder(folder):
    model = load("nets:Net", ["width=4"])
    assert type(model).__name__ == "Net" and model[0].out_channels == 4
    assert not any(module.training for module in model.modules())
    assert torch.equal(model[0].weight, load("nets:Net", ["width=4"])[0].weight), "random weights repeat"
    assert not load("nets:ready").training
    assert isinstance(load("torch.nn:Linear", ["in_features=2", "out_features=3"]), nn.Linear)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("net", InputError, "The model 'net' is neither 'package.module:factory' nor a .pt2 file"),
        ("nets.pt", InputError, "pass --state-dict FILE"),
        ("nets:", InputError, "is neither"),
        ("absent.module:Net", InputError, "There is no module 'absent' in this environment nor in the current folder"),
        ("nets.py:Net", InputError, "A file is named as a module: nets, without its ending"),
        ("nets:Nett", InputError, "'nets' has no 'Nett'"),
        ("nets:number", InputError, "'nets:number' is a int; expected a function or class"),
        ("nets:nothing", InputError, "'nets:nothing' gives a NoneType; expected an nn.Module"),
        ("damaged:Net", CaptureError, r"The module 'damaged' cannot be imported, at .*damaged\.py:1: ModuleNotFound"),
        ("nets:broken", CaptureError, r"'nets:broken' cannot be called with {}.*: TypeError"),
        ("nope.pt2", InputError, "'nope.pt2' is not there; expected a program"),
    ],
)
def test_what_is_no_model(folder, name, error, message):
    with pytest.raises(error, match=message):
        load(name)


def test_the_users_line_is_named(folder):
    with pytest.raises(
        CaptureError, match=r"with {'reason': 'no luck'}, at .*nets\.py:\d+: ValueError: no luck"
    ) as caught:
        load("nets:broken", ["reason=no luck"])
    path, _, line = caught.value.source.rpartition(":")
    assert "raise ValueError(reason)" in folder.joinpath(path).read_text().splitlines()[int(line) - 1]


@pytest.mark.parametrize("kind", ["safetensors", "pt", "checkpoint.pth"])
def test_weights_from_a_file(folder, kind):
    model = load("nets:Net")
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    path = folder / f"weights.{kind}"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if "checkpoint" in kind else state, path)
    assert torch.equal(load("nets:Net", state_dict=path)[0].weight, torch.ones(8, 3, 3, 3))
    with pytest.raises(InputError, match=r"do not fit Net: size mismatch for 0\.weight"):
        load("nets:Net", ["width=4"], state_dict=path)


def test_weights_that_are_none(folder):
    torch.save({"weight": Code()}, "code.pt")
    with pytest.raises(InputError, match=r"'code.pt' is damaged, or holds more than weights.*--allow-pickle"):
        load("nets:Net", state_dict=folder.joinpath("code.pt").relative_to(folder))
    torch.save([1, 2], "list.pt")
    with pytest.raises(InputError, match=r"'list\.pt' holds a list; expected a state_dict"):
        load("nets:Net", state_dict=folder.joinpath("list.pt").relative_to(folder))
    for name in ("text.pt", "text.safetensors"):
        folder.joinpath(name).write_text("no weights")
        with pytest.raises(InputError, match=name):
            load("nets:Net", state_dict=folder / name)
    with pytest.raises(InputError, match="not there; expected a file of weights"):
        load("nets:Net", state_dict=folder / "absent.pt")


def test_a_module_that_was_pickled_whole_needs_permission(folder):
    torch.save(load("nets:Net"), "whole.pt")
    path = folder / "whole.pt"
    with pytest.raises(InputError, match="--allow-pickle"):
        load("nets:Net", state_dict=path)
    assert torch.equal(load("nets:Net", state_dict=path, allow_pickle=True)[0].weight, load("nets:Net")[0].weight)


def test_programs_from_files(folder):
    path = folder / "net.pt2"
    torch.export.save(torch.export.export(load("nets:Net"), (torch.zeros(1, 3, 8, 8),)), path)
    assert isinstance(load(str(path)), torch.export.ExportedProgram)
    with pytest.raises(InputError, match="a file with weights of its own"):
        load(str(path), ["width=4"])
    folder.joinpath("text.pt2").write_text("no program")
    with pytest.raises(InputError, match=r"'text\.pt2' is not a program"):
        load("text.pt2")
    with zipfile.ZipFile("other.pt2", "w") as archive:
        archive.writestr("other/readme", "no program")
    with pytest.raises(CaptureError, match=r"'other\.pt2' cannot be loaded by torch"):
        load("other.pt2")


def test_programs_do_not_bring_code(folder):
    path = folder / "net.pt2"
    torch.export.save(torch.export.export(load("nets:Net"), (torch.zeros(1, 3, 8, 8),)), path)

    def with_parts(target, parts):
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(folder / target, "w") as copy:
            for name in source.namelist():
                copy.writestr(name, parts.pop(name.partition("/")[2], None) or source.read(name))
            for name, content in parts.items():
                copy.writestr(f"net/{name}", content)
        return target

    for name in ("data/constants/opaque_obj_0", "data/aotinductor/model/model.so"):
        with pytest.raises(InputError, match=f"holds code, in 'net/{name}'"):
            load(with_parts("code.pt2", {name: pickle.dumps(Code())}))
    # torch.export falls back to unpickling example inputs; here it must not.
    torch.save((Code(),), "inputs.pt")
    unpickled = with_parts("inputs.pt2", {"data/sample_inputs/model.pt": folder.joinpath("inputs.pt").read_bytes()})
    with pytest.raises(CaptureError, match=r"'inputs.pt2' cannot be loaded by torch.*UnpicklingError"):
        load(unpickled)
