"""What is generated into pages."""

import pytest
from handbook.pages import GENERATORS, expand

from support.documents import pages


def test_an_unknown_place_is_an_error():
    with pytest.raises(KeyError, match="asks for 'poems'; there is api, "):
        expand("a\n\n<!-- generated: poems -->\n")


def test_text_around_a_place_is_kept_and_other_comments_too(monkeypatch):
    monkeypatch.setitem(GENERATORS, "twice", lambda word: f"{word} {word}")
    text = "a\n\n<!-- generated: twice b -->\n\n<!-- a remark -->\nc"
    assert expand(text) == "a\n\nb b\n\n<!-- a remark -->\nc"


def test_every_generator_is_used():
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())
    assert all(f"\n<!-- generated: {name}" in text for name in GENERATORS)
