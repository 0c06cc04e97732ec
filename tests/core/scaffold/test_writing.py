"""Files of a new backend: written whole or not at all, in the words that were asked for, in good style."""

import ast
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from embedl_deploy.errors import InputError
from embedl_deploy.scaffold import new_backend, writing
from embedl_deploy.scaffold.names import names_of

if sys.version_info >= (3, 11):
    import tomllib

FILES = {
    ".gitignore",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "src/embedl_deploy_acme/__init__.py",
    "src/embedl_deploy_acme/checks.py",
    "src/embedl_deploy_acme/limits.py",
    "src/embedl_deploy_acme/modules.py",
    "src/embedl_deploy_acme/patterns.py",
    "src/embedl_deploy_acme/plugin.py",
    "src/embedl_deploy_acme/policy.py",
    "src/embedl_deploy_acme/py.typed",
    "tests/test_pipeline.py",
}


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_writes_a_distribution(tmp_path):
    folder = new_backend("acme", tmp_path / "made" / "too", title="Acme Edge NPU")
    assert folder == tmp_path / "made" / "too" / "embedl-deploy-acme"
    assert files_in(folder) == FILES
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing else is left"
    assert folder.stat().st_mode == folder.parent.stat().st_mode, "others may read it, as any new folder"
    plugin = (folder / "src" / "embedl_deploy_acme" / "plugin.py").read_text(encoding="utf-8")
    assert 'BackendInfo("Acme Edge NPU",' in plugin


@pytest.mark.parametrize("name", ["ab", "abcdefgh-jklmn-pqrst"])
def test_no_placeholder_is_left_and_no_line_is_too_long(name):
    for path, text in writing.rendered_files(names_of(name, "A" * 40)).items():
        assert "$" not in text, path
        assert "__package__" not in str(path)
        assert "acme" not in text.lower(), f"{path} has a name of its own"
        if path.suffix == ".py":
            ast.parse(text, str(path))
            assert max(map(len, text.splitlines())) <= 120, path


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the standard library reads TOML from Python 3.11 on")
def test_the_project_file_says_what_installers_and_pytest_need():
    text = writing.rendered_files(names_of("acme-npu"))[PurePosixPath("pyproject.toml")]
    project = tomllib.loads(text)
    assert project["project"]["entry-points"]["embedl_deploy.backends"] == {"acme-npu": "embedl_deploy_acme_npu.plugin"}
    assert project["project"]["requires-python"] == ">=3.10"
    assert project["project"]["dependencies"][0].startswith("embedl-deploy-core>=")
    assert "Private :: Do Not Upload" in project["project"]["classifiers"], "until a licence is chosen"
    assert project["tool"]["pytest"]["ini_options"]["addopts"] == "-p embedl_deploy.testing --conformance acme-npu"


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "embedl-deploy-acme").mkdir()
    assert files_in(new_backend("acme", tmp_path)) == FILES


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    target = tmp_path / "embedl-deploy-acme"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="is a folder that is not empty, and nothing in it is overwritten"):
        new_backend("acme", tmp_path)
    assert files_in(tmp_path) == {"embedl-deploy-acme/notes.txt"}


def test_a_file_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "embedl-deploy-acme").write_text("mine")
    with pytest.raises(InputError, match="is a file, and nothing in it is overwritten"):
        new_backend("acme", tmp_path)
    assert (tmp_path / "embedl-deploy-acme").read_text() == "mine"


def test_nothing_is_written_for_a_wrong_name(tmp_path):
    with pytest.raises(InputError):
        new_backend("tensorrt", tmp_path / "here")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("empty_before", [False, True])
def test_a_failure_half_way_leaves_nothing(tmp_path, monkeypatch, empty_before):
    if empty_before:
        (tmp_path / "embedl-deploy-acme").mkdir()
    write, written = Path.write_text, []

    def full_disk(path, *args, **kwargs):
        if len(written) == 5:
            raise OSError(28, "No space left on device", str(path))
        written.append(path)
        return write(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space left"):
        new_backend("acme", tmp_path)
    assert len(written) == 5
    assert files_in(tmp_path) == set()
    assert [path.name for path in tmp_path.iterdir()] == ["embedl-deploy-acme"] * empty_before


def test_templates_are_packaged():
    """In the installed core, from which these tests run, every template is there."""
    assert len(list((Path(writing.__file__).parent / "template").rglob("*.tmpl"))) == len(FILES)


def test_importing_the_core_does_not_import_it():
    code = "import sys, embedl_deploy; print('embedl_deploy.scaffold' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
