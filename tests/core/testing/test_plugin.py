"""The plugin as the author of a backend uses it: one line in the configuration, in the project of the backend."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from embedl_deploy.backend import reset_backends
from embedl_deploy.testing.plugin import asked_for

PLUGIN = """
from core.testing.small_backend import BlockPattern, WrongInEvaluation, INFO
from embedl_deploy.backend import hookimpl

class WrongPattern(BlockPattern):
    tree = BlockPattern.tree
    graft = WrongInEvaluation

class RaisingPattern(BlockPattern):
    def check(self, match):
        raise KeyError("lost")

@hookimpl
def embedl_deploy_describe():
    return INFO

@hookimpl
def embedl_deploy_fusions():
    return [BlockPattern(), WrongPattern(), RaisingPattern()]
"""
CONFIGURATION = """
[tool.pytest.ini_options]
addopts = ["-p", "embedl_deploy.testing", "--conformance", "acme", "--import-mode=importlib", "--strict-markers"]
filterwarnings = ["error"]
"""
#: A pattern's quick checks.
QUICK = "(declares or matches or reached or numbers) and not (network or onnx)"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The folder of a backend's project, with the backend installed."""
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[embedl_deploy.backends]\nacme = acme_plugin\n")
    (tmp_path / "acme_plugin.py").write_text(PLUGIN)
    (tmp_path / "pyproject.toml").write_text(CONFIGURATION)
    (tmp_path / "test_own.py").write_text("def test_own():\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    reset_backends()
    yield tmp_path
    sys.modules.pop("acme_plugin", None)
    reset_backends()


def run_here(capsys, *arguments):
    """Run pytest on the project in this process: exit status, and what it printed."""
    capsys.readouterr()
    status = pytest.main([*arguments, "-p", "no:cacheprovider", "-p", "no:faulthandler"])
    return status, capsys.readouterr().out


def test_in_processes_of_its_own(project):
    """With pytest-xdist, which must hand the decision on, and with warnings as errors."""
    paths = os.pathsep.join([str(project), str(Path(__file__).parents[2])])
    program = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "1",
        "--dist",
        "loadfile",
        "-k",
        f"({QUICK}) and (WrongPattern or RaisingPattern or BlockPattern)",
    ]
    done = subprocess.run(
        program, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths}, cwd=project
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    failed = [line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert {line for line in failed if "Wrong" in line} == {
        "FAILED conformance/acme/WrongPattern::is reached among the backend's other patterns",
        "FAILED conformance/acme/WrongPattern::keeps its numbers in evaluation mode",
        "FAILED conformance/acme/WrongPattern::keeps its numbers in variations of its examples",
    }
    assert not any("BlockPattern" in line for line in failed)
    assert "Traceback" not in done.stdout
    assert "Backend 'acme' fails a check: WrongPattern keeps its numbers in evaluation mode." in done.stdout
    assert "found:    KeyError: 'lost', raised at " in done.stdout
    assert "acme_plugin.py:11, in check" in done.stdout


def test_by_itself_when_nothing_is_named(project, capsys):
    status, printed = run_here(capsys, "--collect-only", "-q", "-m", "conformance")
    assert status == pytest.ExitCode.OK
    ids = [line for line in printed.splitlines() if "::" in line]
    assert ids[0] == "conformance/acme/the backend::describes itself"
    assert "conformance/acme/BlockPattern::keeps its numbers in training mode" in ids
    assert "conformance/acme/perceptron::keeps the backend's own rules" in ids
    assert not any("test_own" in line for line in ids)
    assert run_here(capsys, "--collect-only", "-q", "-m", "conformance")[1].splitlines()[: len(ids)] == ids


@pytest.mark.parametrize("named", ["test_own.py", "test_own.py::test_own"])
def test_not_when_a_file_is_named(project, capsys, named):
    status, printed = run_here(capsys, named)
    assert status == pytest.ExitCode.OK
    assert "1 passed" in printed


def test_by_itself_when_the_project_is_named_from_above(project, capsys, monkeypatch):
    """As one does who has just made it: ``pytest embedl-deploy-kestrel``."""
    monkeypatch.chdir(project.parent)
    _, printed = run_here(capsys, project.name, "--collect-only", "-q", "-m", "conformance")
    assert "conformance/acme/the backend::describes itself" in printed


def test_when_the_option_is_typed(project, capsys):
    status, printed = run_here(capsys, "test_own.py", "--conformance", "acme", "--collect-only", "-q")
    assert status == pytest.ExitCode.OK
    assert "test_own.py::test_own" in printed
    assert printed.count("conformance/acme/WrongPattern::deep") == 0
    assert "conformance/acme/WrongPattern::can be deep-copied" in printed


HOUSE = """
from core.testing.small_backend import BlockPattern, WrongInEvaluation
from embedl_deploy.backend import hookimpl
from torch import nn

class HousePattern(BlockPattern):
    graft = WrongInEvaluation

@hookimpl
def embedl_deploy_fusions():
    return [HousePattern()]

@hookimpl
def embedl_deploy_quantization_policies():
    return {"all": lambda point: ""}
"""


@pytest.fixture
def house(project):
    """An extension of the backend, beside it."""
    info = project / "house-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[embedl_deploy.backends]\nacme.house = house_plugin\n")
    (project / "house_plugin.py").write_text(HOUSE)
    reset_backends()
    yield project
    sys.modules.pop("house_plugin", None)


def test_an_extension_is_tested_alone(house, capsys):
    chosen = "acme.house and (policies or numbers-evaluation or is-reached)"
    status, printed = run_here(capsys, "--conformance", "acme.house", "-k", chosen, "-rfs")
    assert status == pytest.ExitCode.TESTS_FAILED
    ids = {line.split(" - ")[0] for line in printed.splitlines() if line.startswith("FAILED") and "house" in line}
    assert ids == {
        "FAILED conformance/acme.house/the extension::has policies that answer",
        "FAILED conformance/acme.house/HousePattern::keeps its numbers in evaluation mode",
    }
    assert "Extension 'acme.house' fails a check: HousePattern keeps its numbers in evaluation" in printed
    assert "found:    the answer ''" in printed
    _, collected = run_here(capsys, "test_own.py", "--conformance", "acme.house", "--collect-only", "-q")
    labels = {line.split("::")[0] for line in collected.splitlines() if line.startswith("conformance/acme.house/")}
    assert {"conformance/acme.house/the extension", "conformance/acme.house/HousePattern"} < labels
    assert not any("WrongPattern" in label or "RaisingPattern" in label for label in labels)


def test_an_unknown_extension(house, capsys):
    status = pytest.main(["--conformance", "acme.attic", "-p", "no:cacheprovider", "-p", "no:faulthandler"])
    assert status == pytest.ExitCode.USAGE_ERROR
    words = "--conformance acme.attic: 'acme' has no such extension; it has acme.house."
    assert words in capsys.readouterr().err


def test_an_unknown_backend(project, capsys):
    status = pytest.main(["--conformance", "nowhere", "-p", "no:cacheprovider", "-p", "no:faulthandler"])
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --conformance nowhere: No backend 'nowhere' is installed." in capsys.readouterr().err


def test_a_broken_backend(project, capsys):
    (project / "acme_plugin.py").write_text("raise RuntimeError('not today')")
    status = pytest.main(["-p", "no:cacheprovider", "-p", "no:faulthandler"])
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "Backend 'acme' (from acme 1.0) cannot be imported: RuntimeError: not today" in capsys.readouterr().err


def test_full_trace_shows_where_it_was_raised(project, capsys):
    _, printed = run_here(capsys, "--full-trace", "-k", "RaisingPattern and matches-once")
    assert "in check\n" in printed or "def check(self, match):" in printed
    assert "  do:  " not in printed


@pytest.mark.parametrize(
    ("typed", "source", "names"),
    [
        ([], "TESTPATHS", ["acme", "other"]),
        ([], "INVOCATION_DIR", ["acme", "other"]),
        (["tests"], "ARGS", ["acme", "other"]),
        (["tests", "other"], "ARGS", []),
        (["tests/deep"], "ARGS", []),
        (["."], "ARGS", ["acme", "other"]),
        (["../project"], "ARGS", ["acme", "other"]),
        (["deep", "--conformance", "acme"], "ARGS", ["acme", "other"]),
        (["deep", "--conformance=acme"], "ARGS", ["acme", "other"]),
        (["deep", "--conformances"], "ARGS", []),
    ],
)
def test_when_it_is_asked_for(typed, source, names, tmp_path):
    config = SimpleNamespace(
        invocation_params=SimpleNamespace(args=typed, dir=tmp_path / "project"),
        args=[argument for argument in typed if not argument.startswith("--")],
        rootpath=tmp_path / "project",
        getini=lambda name: ["tests"],
        args_source=getattr(pytest.Config.ArgsSource, source),
        getoption=lambda name: ["acme", "other", "acme"],
    )
    assert asked_for(config) == names


def test_without_pytest(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    monkeypatch.delitem(sys.modules, "embedl_deploy.testing")
    with pytest.raises(ImportError, match="is a plugin of pytest, which is not installed here: pip install pytest"):
        importlib.import_module("embedl_deploy.testing")
