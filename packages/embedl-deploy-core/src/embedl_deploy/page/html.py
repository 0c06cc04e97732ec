"""HTML that is escaped by construction: whatever is not made here is text."""

import html
import re
from collections.abc import Iterable
from typing import Any

#: What has no place in a document, and what turns the direction of text around.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_VOID = frozenset({"br", "meta", "link", "input"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as text, escaped; control characters are shown as ``�``."""
    return value if isinstance(value, Html) else Html(_escaped(value))


def _escaped(value: object) -> str:
    return html.escape(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def join(*children: Any) -> Html:
    """Children one after another: HTML as it is, iterables in order, ``None`` left out, and everything else as text."""
    return Html("".join(_parts(children)))


def _parts(children: Iterable[Any]) -> Iterable[str]:
    for child in children:
        if child is None:
            continue
        if isinstance(child, str) or not isinstance(child, Iterable):
            yield text(child)
        else:
            yield from _parts(child)


def tag(_name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element.

    Args:
        _name: Of the element.
        *children: As :func:`join` takes them.
        **attributes: ``class_`` for ``class``, ``data_v`` for ``data-v``; ``True`` for one without a value, ``None`` or
            ``False`` to leave it out.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{_name}{written}>" if _name in _VOID else f"<{_name}{written}>{join(*children)}</{_name}>")


def code(value: object) -> Html:
    """A name from a model, a graph or a file."""
    return tag("code", breakable(value))


def breakable(value: object) -> Html:
    """A name that a line may break behind its dots and underscores, and before a capital letter after a small one."""
    return Html(re.sub(r"([._/])(?=\w)|(?<=[a-z])(?=[A-Z])", r"\1<wbr>", text(value)))


def link(target: str, *children: Any, **attributes: Any) -> Html:
    """A link within the page."""
    return tag("a", *children, href=f"#{target}", **attributes)
