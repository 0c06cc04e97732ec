"""The documentation lists the laws as they are."""

from fuzz.laws import FAMILIES, LAWS
from support.documents import DOCS


def test_every_law_has_a_row():
    page = (DOCS / "fuzzing.md").read_text(encoding="utf-8")
    rows = [f"| `{law.name}` | {law.share:.0%} | {law.hold.__doc__.strip().splitlines()[0]} |" for law in LAWS.values()]
    assert "\n".join(rows) in page
    assert set(FAMILIES) == set(LAWS)
