"""Reading a page as a browser does, as far as its structure goes."""

from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "link", "wbr", "br", "input"}


class Page(HTMLParser):
    """A parsed page; whatever is not closed, or closed twice, is an error.

    Attributes:
        tags: Every element with its attributes.
        texts: What is written in them, in order.
        scripts: What is in the script elements.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"{self._open} are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        (self.scripts if self._open and self._open[-1] in ("script", "style") else self.texts).append(data)

    @property
    def ids(self) -> list[str]:
        """All anchors."""
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    @property
    def links(self) -> list[str]:
        """Where links lead."""
        return [attributes["href"] for tag, attributes in self.tags if tag == "a"]

    @property
    def sections(self) -> list[str]:
        """Anchors of the sections."""
        return [attributes["id"] for tag, attributes in self.tags if tag == "section"]

    @property
    def text(self) -> str:
        """All that is written."""
        return "".join(self.texts)
