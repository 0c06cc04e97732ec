"""``embedl-deploy new-backend``, and what ``backends -v`` says of extensions."""

import json
import sys

import pytest

from support.cli_folder import left_behind


def test_writes_here_and_says_what_to_do_next(command, folder):
    done = command("new-backend", "acme-npu")
    assert (done.code, done.err) == (0, "")
    first, *rest = done.out.splitlines()
    assert first == "Wrote embedl-deploy-acme-npu, 13 files"
    assert "  src/embedl_deploy_acme_npu/plugin.py" in rest
    assert rest[-2].endswith(": cd embedl-deploy-acme-npu && pip install -e '.[test]' && pytest")
    assert rest[-1] == "pytest without a path runs the conformance kit as well."
    assert left_behind(folder) == ["embedl-deploy-acme-npu"]


def test_as_json(command, folder):
    done = command("new-backend", "acme-npu", "--directory", "a/b", "--title", "Acme Edge NPU", "--json")
    data = json.loads(done.out)
    assert data["backend"] == "acme-npu"
    assert data["directory"] == "a/b/embedl-deploy-acme-npu"
    assert all((folder / data["directory"] / file).is_file() for file in data["files"])
    assert "Acme Edge NPU" in (folder / data["directory"] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new-backend"], "Missing argument 'NAME'"),
        (["new-backend", "Acme"], "'Acme' is not a valid backend name"),
        (["new-backend", "class"], "'class' is a keyword of Python"),
        (["new-backend", "tensorrt"], "'tensorrt' is installed already"),
        (["new-backend", "acme-npu", "--title", ""], "title '' cannot be written"),
        (["new-backend", "acme-npu", "--directory", "nets.py"], "Directory 'nets.py' is a file"),
    ],
)
def test_refusals(command, folder, arguments, message):
    done = command(*arguments)
    assert done.code == 2
    assert message in done.err
    assert left_behind(folder) == []


def test_verbose_backends_say_who_brings_what(command, acme, folder):
    (folder / "acme_inhouse.py").write_text(
        "from embedl_deploy.backend import hookimpl\n"
        "@hookimpl\n"
        "def embedl_deploy_quantization_policies():\n"
        "    return {'quick': lambda point: None}\n"
    )
    info = folder / "inhouse-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: inhouse\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[embedl_deploy.backends]\nacme.inhouse = acme_inhouse\n")
    done = command("backends", "-v", "-b", "acme", "--json")
    data = json.loads(done.out)
    assert data["acme"]["extensions"] == ["acme.inhouse (inhouse 3.1)"]
    assert data["acme"]["contributions"] == [
        {"kind": "policy", "name": "quick", "plugin": "acme.inhouse", "origin": "inhouse 3.1"},
        {"kind": "compiler", "name": "absent", "plugin": "acme", "origin": "acme 1.2"},
        {"kind": "compiler", "name": "quick", "plugin": "acme", "origin": "acme 1.2"},
        {"kind": "device", "name": "Acme 1", "plugin": "acme", "origin": "acme 1.2"},
        {"kind": "device", "name": "Acme 12", "plugin": "acme", "origin": "acme 1.2"},
    ]
    text = command("backends", "-v", "-b", "acme").out
    assert "  acme.inhouse (inhouse 3.1) brings\n    policies: quick\n  acme (acme 1.2) brings\n" in text
    assert "    compilers: absent, quick\n    devices: Acme 1, Acme 12\n" in text
    sys.modules.pop("acme_inhouse")
