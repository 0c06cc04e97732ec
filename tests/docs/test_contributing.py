"""CONTRIBUTING's example, followed to the letter in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys

from support.documents import ROOT

_FILE = re.compile(r"^`([\w/.-]+\.py)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def copy_of_repository(target):
    """What a test of a pattern needs: the sources of the distributions, and what tests share."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package in (ROOT / "packages").iterdir():
        shutil.copytree(package / "src", target / "packages" / package.name / "src", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "support", target / "tests" / "support", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", target)


def test_a_pattern_is_one_source_file_and_one_test_file(tmp_path):
    copy_of_repository(tmp_path)
    files = dict(_FILE.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    (source,) = (name for name in files if name.startswith("packages/"))
    (test,) = (name for name in files if name.startswith("tests/"))
    assert len(files) == 2
    for name, text in files.items():
        assert not (tmp_path / name).exists(), f"{name} is in the tree: delete the example of CONTRIBUTING"
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert (tmp_path / source).parent.name == "fusions"
    paths = [*(str(path) for path in (tmp_path / "packages").glob("*/src")), str(tmp_path / "tests")]
    # As pytest-xdist names its own processes, of which this may be one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", test],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed in", done.stdout, re.MULTILINE), done.stdout
