"""What users are told to type to install."""

import re
import shlex

import pytest

from support.documents import ROOT

LINES = [
    (path.relative_to(ROOT).as_posix(), line)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for line in re.findall(r"(?:^|\\$ |`)(pip install [^`\n]*)", path.read_text(), flags=re.MULTILINE)
]


def test_there_are_some():
    assert {"README.md", "docs/start.md", "docs/write_a_backend.md"} <= {path for path, _ in LINES}


@pytest.mark.parametrize(("path", "line"), LINES)
def test_brackets_are_quoted_which_zsh_would_expand(path, line):
    assert not re.search(r"(?<!')\./[^' ]*\[", line)
    given = shlex.split(line, comments=True)[2:]
    assert all((ROOT / each.partition("[")[0]).exists() for each in given if each.startswith("./packages"))


@pytest.mark.parametrize(("path", "line"), [(path, line) for path, line in LINES if "torchvision" in line])
def test_torch_is_kept(path, line):
    assert line.startswith("pip install -c constraints.txt ")
