"""The document around the sections: one file, with its style and script in it, that asks for nothing else."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from embedl_deploy.page.html import Html, join, link, tag
from embedl_deploy.page.modules import Modules
from embedl_deploy.page.run import Run
from embedl_deploy.page.section import Source
from embedl_deploy.page.sections.commands import commands
from embedl_deploy.page.sections.comparison import comparison
from embedl_deploy.page.sections.findings import findings
from embedl_deploy.page.sections.float32 import float32
from embedl_deploy.page.sections.frontier import frontier
from embedl_deploy.page.sections.kernels import kernels
from embedl_deploy.page.sections.layers import layers
from embedl_deploy.page.sections.rewrites import rewrites
from embedl_deploy.page.summary import subtitle, summary

#: What makes the sections, in the order of the page.
_SECTIONS = (rewrites, layers, comparison, frontier, findings, float32, kernels, commands)


def document(run: Run, title: str) -> str:
    """The whole page as HTML."""
    source = Source(run, Modules(run))
    made = [section for section in (make(source) for make in _SECTIONS) if section is not None]
    nav = tag("nav", [link(section.anchor, section.short) for section in made], aria_label="Sections")
    sections = [tag("section", tag("h2", section.title), section.body, id=section.anchor) for section in made]
    nothing = tag("p", "There is nothing to show: no report was given.") if not made else None
    about = subtitle(run)
    header = tag("header", tag("h1", title), tag("p", about, class_="about") if about else None, summary(run))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy()),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(_asset("page.css"))),
    )
    body = tag("body", header, nav, tag("main", nothing, sections), tag("script", Html(_asset("page.js"))))
    return join(Html("<!doctype html>\n"), tag("html", head, body, lang="en"), "\n")


@cache
def _asset(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _policy() -> str:
    """Nothing may be fetched, and no script but the page's own may run, whatever a name in a report holds."""
    digest = base64.b64encode(hashlib.sha256(_asset("page.js").encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
