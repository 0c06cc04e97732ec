"""The Sphinx extension of this documentation: pages get what can be read from the code."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: "Sphinx") -> dict[str, Any]:
    """Fill in the generated parts of pages, and find what docstrings refer to."""
    from handbook.docstrings import keep_property, restore
    from handbook.pages import expand
    from handbook.references import resolve

    def fill_in(_app: "Sphinx", _page: str, content: list[str]) -> None:
        content[0] = expand(content[0])

    app.connect("source-read", fill_in)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-docstring", keep_property, priority=100)  # before sphinx.ext.napoleon, which is at 500
    app.connect("autodoc-process-docstring", restore, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
