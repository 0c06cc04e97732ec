"""Docstrings as they are meant, where reading them as reStructuredText in Google's style would say something else."""

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

#: The rest of a shape, as in ``(N, C, *size)``; not the start of emphasis.
_REST_OF_SHAPE = re.compile(r"(?<=[ (])\*(?=\w+[,)])")
_properties: dict[str, list[str]] = {}


def keep_property(_app: "Sphinx", what: str, name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Remember the docstring of a property: Google's style takes what stands before a colon for its type."""
    if what == "property":
        _properties[name] = list(lines)


def restore(_app: "Sphinx", _what: str, name: str, _value: Any, _options: Any, lines: list[str]) -> None:
    """Put back the docstring of a property, and write shapes as they are."""
    if name in _properties:
        lines[:] = _properties.pop(name)
    lines[:] = [line if "``" in line else _REST_OF_SHAPE.sub(r"\\*", line) for line in lines]
