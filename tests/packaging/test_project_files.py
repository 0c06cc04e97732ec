"""What README, the scripts and the sessions say of each other."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SESSIONS = set(re.findall(r"@nox\.session\s+def (\w+)", (ROOT / "noxfile.py").read_text()))


def test_sessions_exist():
    assert {"demo", "tests", "lint", "typecheck", "build", "bench", "zoo"} <= SESSIONS


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "dev", ".ci/run"])
def test_every_session_that_is_named_exists(document):
    named = set(re.findall(r"\./dev ([a-z]+)", (ROOT / document).read_text()))
    assert named
    assert named <= SESSIONS | {"test"}


def test_links_in_documents_lead_somewhere():
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_dev_explains_itself():
    done = subprocess.run([ROOT / "dev"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: ./dev SESSION" in done.stdout


def test_ci_runs_what_readme_says():
    assert (ROOT / ".ci" / "run").read_text().strip().endswith("exec ./dev test")
