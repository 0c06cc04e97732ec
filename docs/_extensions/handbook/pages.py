"""The places of pages at which generated text stands: ``<!-- generated: NAME ARGUMENT ... -->``."""

import re
from collections.abc import Callable

from handbook.api import room_reference
from handbook.architecture import architecture_picture
from handbook.codes import code_reference
from handbook.forms import form_reference
from handbook.hooks import hook_reference
from handbook.patterns import pattern_reference
from handbook.rules import rule_reference

#: What a place can ask for: functions of the words behind the name, that give Markdown.
GENERATORS: dict[str, Callable[..., str]] = {
    "api": room_reference,
    "architecture": architecture_picture,
    "codes": code_reference,
    "forms": form_reference,
    "hooks": hook_reference,
    "patterns": pattern_reference,
    "rules": rule_reference,
}
PLACE = re.compile(r"^<!-- generated: (?P<words>[^>]*?) -->$", re.MULTILINE)


def expand(text: str) -> str:
    """Put what is generated into a page.

    Raises:
        KeyError: A place asks for what no generator gives.
    """

    def generated(place: re.Match[str]) -> str:
        name, *arguments = place["words"].split()
        if name not in GENERATORS:
            raise KeyError(f"{place[0]!r} asks for {name!r}; there is {', '.join(GENERATORS)}")
        return GENERATORS[name](*arguments)

    return PLACE.sub(generated, text)
