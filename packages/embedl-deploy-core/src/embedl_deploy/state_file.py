"""Saves intermediate results in a file, so that long work can be resumed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedl_deploy.errors import InputError
from embedl_deploy.files import atomic_write, read_text
from embedl_deploy.json_text import NotJsonError, parse_json

_VERSION = 1


class StateFile:
    """A JSON file that is written whole after each step, and read by the next run.

    Args:
        path: The file; ``None`` keeps nothing.
        of: What the work is of, as names and values: a model's fingerprint, a compiler, settings. A file of something
            else is refused, by the name of what differs.
    """

    def __init__(self, path: str | os.PathLike[str] | None, of: Mapping[str, str]) -> None:
        self.path = None if path is None else Path(path)
        self.of = dict(of)

    def load(self) -> dict[str, Any]:
        """What was saved last; empty if nothing was.

        Raises:
            InputError: The file is of something else, or it is not a state file.
        """
        if self.path is None or not self.path.exists():
            return {}
        name = repr(os.fspath(self.path))
        try:
            plain = parse_json(read_text(self.path, "a state file"))
        except NotJsonError as error:
            raise InputError(f"{name} is not a state file, because it is not JSON: {error}. Delete it.") from error
        if not isinstance(plain, dict) or plain.get("version") != _VERSION or not isinstance(plain.get("of"), dict):
            raise InputError(f"{name} is not a state file of version {_VERSION}. Delete it to start over.")
        for what, value in self.of.items():
            if plain["of"].get(what) != value:
                raise InputError(
                    f"{name} is the state of another {what}: {plain['of'].get(what)!r}, and this is {value!r}. Give "
                    "another file, or delete it to start over."
                )
        found = plain.get("found")
        if not isinstance(found, dict):
            raise InputError(f"{name} is a state file without what was found. Delete it to start over.")
        return found

    def save(self, found: Mapping[str, Any]) -> None:
        """Write what was found so far; a run that is interrupted while it writes leaves the file as it was."""
        if self.path is None:
            return
        text = json.dumps({"version": _VERSION, "of": self.of, "found": found}, indent=1)
        with atomic_write(self.path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
