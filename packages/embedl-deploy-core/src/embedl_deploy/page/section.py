"""What a section of a page is."""

from collections.abc import Sequence
from dataclasses import dataclass

from embedl_deploy.page.html import Html, breakable, link, tag
from embedl_deploy.page.modules import ModuleLine, Modules
from embedl_deploy.page.run import Run


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        anchor: Its own.
        short: What it is called in the line at the head of the page.
        title: Its heading.
        body: What is below it.
    """

    anchor: str
    short: str
    title: str
    body: Html


@dataclass(frozen=True)
class Source:
    """What sections are drawn from.

    Attributes:
        run: The reports.
        modules: The lines that are joined from them.
    """

    run: Run
    modules: Modules


def folded(title: str, items: Sequence[Html], *, is_open: bool = False) -> Html | None:
    """A list under a title that is clicked to see it; ``None`` if it is empty."""
    head = tag("summary", f"{title} ({len(items)})")
    return tag("details", head, tag("ul", items), open=is_open) if items else None


def module_link(line: ModuleLine) -> Html:
    """A link to a module's line in the table of layers."""
    return link(f"m{line.number}", tag("code", breakable(line.path)))


def module_named(source: Source, path: str | None) -> Html | None:
    """A module's path, with a link to its line if it has one."""
    if not path:
        return None
    line = source.modules.find(path)
    name = tag("code", breakable(path))
    return name if line is None or not line.is_listed else link(f"m{line.number}", name)
