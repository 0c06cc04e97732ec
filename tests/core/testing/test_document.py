"""The document for authors of backends lists every check in its own words."""

from pathlib import Path

import pytest

from embedl_deploy.testing import BACKEND_CHECKS, NETWORK_CHECKS, PATTERN_CHECKS

DOCUMENT = Path(__file__).parents[3] / "docs" / "conformance.md"
TABLES = {
    "Of each pattern": ("the pattern …", PATTERN_CHECKS),
    "Of the backend": ("the backend …", BACKEND_CHECKS),
    "Of each network": ("the network …", NETWORK_CHECKS),
}


def table(subject, checks):
    """The table of some checks, as the document has it."""
    rows = [f"| `{c.id}`{' ✱' if c.fusions_only else ''} | {c.title} | {c.why} | {c.advice} |" for c in checks]
    return "\n".join([f"| check | {subject} | because | if not |", "|---|---|---|---|", *rows])


@pytest.mark.parametrize("section", TABLES)
def test_every_check_is_listed(section):
    text = DOCUMENT.read_text(encoding="utf-8").split(f"## {section}\n")[1].split("\n## ")[0]
    assert table(*TABLES[section]) in text


def test_ids_and_titles_are_unique():
    for checks in (PATTERN_CHECKS, BACKEND_CHECKS, NETWORK_CHECKS):
        assert len({check.id for check in checks}) == len({check.title for check in checks}) == len(checks)
