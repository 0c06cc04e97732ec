"""The pages of the documentation, as they are built."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def pages() -> list[Path]:
    """Every page, and what a visitor of the repository reads first."""
    written = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(written)]


@cache
def expanded(name: str) -> str:
    """A page of docs/ with what is generated in its place."""
    from handbook.pages import expand

    return expand((DOCS / name).read_text(encoding="utf-8"))


def headings(text: str) -> list[str]:
    """The headings of a page, code blocks left out."""
    return re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)


def without_code(text: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchor(heading: str) -> str:
    """What a link to a heading ends with, as forges and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
