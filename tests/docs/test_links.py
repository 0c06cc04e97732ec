"""Links between documents, and to headings in them."""

import re

import pytest

from support.documents import ROOT, anchor, expanded, headings, pages, without_code

_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in _LINK.findall(without_code(page.read_text(encoding="utf-8"))):
        if target.startswith(("http:", "https:")):
            continue
        name, _, fragment = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if fragment:
            docs = ROOT / "docs"
            text = expanded(str(file.relative_to(docs))) if docs in file.parents else file.read_text(encoding="utf-8")
            assert fragment in map(anchor, headings(text)), f"{page.name} links to {target}"


def test_every_page_is_in_a_table_of_contents():
    listed = set()
    for page in (path for path in pages() if path.parent != ROOT):
        for toctree in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
            entries = [line for line in toctree.splitlines() if line and not line.startswith(":")]
            for entry in entries:
                listed |= {path.resolve() for path in page.parent.glob(f"{entry}.md")}
    assert listed == {path for path in pages() if path.parent != ROOT and path.name != "index.md"} | {
        ROOT / "docs" / "reference" / "index.md"
    }
