"""What differs between two folders of outputs, in words."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

#: The entry of a file's metadata that says, in words, why layers are in float.
IN_FLOAT = "embedl_deploy.in_float"
#: Keys whose values, where they are texts or lists of texts, are for people. ``unsupported`` holds texts by name, and
#: ``bytes`` is of a file with such a text in it, of which ``sha256`` has the rest.
_TEXTS = frozenset(
    {"config", "findings", "message", "notes", "outcome", "reason", "remedy", "text", "title", IN_FLOAT, "bytes"}
)
#: The rule that decided a point is a text, while that of a finding is an identifier.
_RULE_OF_A_POINT = re.compile(r"points\[\d+\].*\.rule")
#: What names an entry of a list, where entries have it.
_NAMES = ("name", "node", "path", "pattern", "rule")
#: Characters of a value that are shown.
_WIDTH = 160


class Kind(Enum):
    """What sort of difference it is.

    Attributes:
        VALUE: Anything that a program may depend on.
        WORDS: A text for people.
        NEW_KEY: A key that was not there before.
    """

    VALUE = "values"
    WORDS = "words"
    NEW_KEY = "new-keys"


@dataclass(frozen=True)
class Difference:
    """One place where two outputs differ.

    Attributes:
        where: The keys that lead there.
        what: What was there, and what is.
        kind: The sort of difference.
    """

    where: str
    what: str
    kind: Kind = Kind.VALUE

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def compare_folders(before: Path, after: Path) -> dict[str, list[Difference]]:
    """What differs, by the files in which it does; a folder for each model.

    Raises:
        FileNotFoundError: One of the two is no folder, or ``before`` is empty.
    """
    files = [{path.relative_to(folder) for path in folder.glob("*/*.json")} for folder in (before, after)]
    for folder, found in zip((before, after), files, strict=True):
        if not found:
            raise FileNotFoundError(f"{str(folder)!r} has no outputs: expected what `zoo.unchanged write` wrote there.")
    differences: dict[str, list[Difference]] = {}
    for file in sorted(files[0] | files[1]):
        if file not in files[1]:
            found_here = [Difference("", "it is missing after the change")]
        elif file not in files[0]:
            found_here = [Difference("", "it is new", Kind.NEW_KEY)]
        else:
            was, now = (json.loads((folder / file).read_text(encoding="utf-8")) for folder in (before, after))
            found_here = list(_differences(was, now, "", in_words=False))
        if found_here:
            differences[str(file)] = found_here
    return differences


def _differences(was: Any, now: Any, where: str, *, in_words: bool) -> Iterator[Difference]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*was, *now)):
            here = f"{where}.{key}" if where else str(key)
            words = in_words or _is_text(here, key, was.get(key, now.get(key)))
            if key not in now:
                yield Difference(here, f"it was {_shown(was[key])}, and is gone", _kind(words))
            elif key not in was:
                yield Difference(here, f"it is new: {_shown(now[key])}", Kind.WORDS if in_words else Kind.NEW_KEY)
            else:
                yield from _differences(was[key], now[key], here, in_words=words)
        if list(was) != list(now) and set(was) == set(now):
            yield Difference(where, "its keys are in another order")
    elif isinstance(was, list) and isinstance(now, list):
        if len(was) != len(now):
            yield Difference(where, f"it had {len(was)} entries, and has {len(now)}", _kind(in_words))
        for index, (one, other) in enumerate(zip(was, now, strict=False)):
            here = f"{where}[{index}]{_name(one)}"
            yield from _differences(one, other, here, in_words=in_words)
    elif type(was) is not type(now) or was != now:
        yield Difference(where, f"it was {_shown(was)}, and is {_shown(now)}", _kind(in_words))


def _is_text(where: str, key: str, value: Any) -> bool:
    if isinstance(value, str):
        return key in _TEXTS or _RULE_OF_A_POINT.fullmatch(where) is not None
    if isinstance(value, list):
        return key in _TEXTS and all(isinstance(entry, str) for entry in value)
    return key == "unsupported"


def _kind(in_words: bool) -> Kind:
    return Kind.WORDS if in_words else Kind.VALUE


def _name(entry: Any) -> str:
    """The entry's own name, for a reader who does not count."""
    if not isinstance(entry, dict):
        return ""
    return next((f" ({entry[key]})" for key in _NAMES if isinstance(entry.get(key), str)), "")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}…"
