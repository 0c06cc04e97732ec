"""Saves intermediate results in a file, so that long work can be resumed."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from embedl_deploy.errors import InputError
from embedl_deploy.file_lock import used_alone
from embedl_deploy.files import read_text, write_text
from embedl_deploy.json_text import NotJsonError, parse_json

_VERSION = 2


class StateFile:
    """A JSON file that is written whole after each step, and read by the next run.

    A process that is killed, also while it writes, leaves the file as it was after the step before.

    Args:
        path: The file; ``None`` keeps nothing.
        of: What the work is of, as names and values: a model's fingerprint, a compiler, settings. A file of something
            else is refused, by the name of what differs.
        kept_in: ``"file"``, or ``"folder"`` if what was found is in its folder as well: what messages say to delete.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, of: Mapping[str, str], kept_in: Literal["file", "folder"] = "file"
    ) -> None:
        self.path = None if path is None else Path(path)
        self.of = dict(of)
        self._kept_in = kept_in

    @contextmanager
    def in_use(self) -> Iterator[dict[str, Any]]:
        """Within the block no other run uses the file; gives what was saved last, which is empty if nothing was.

        Raises:
            InputError: Another run uses the file; it is of something else, or not as :meth:`save` wrote it.
            FileWriteError: No file can be created in its folder.
        """
        if self.path is None:
            yield {}
            return
        with used_alone(self.path):
            self._remove_half_written(self.path)
            yield self._saved(self.path) if self.path.exists() else {}

    def _saved(self, path: Path) -> dict[str, Any]:
        name = repr(os.fspath(path))
        it = "it" if self._kept_in == "file" else "the folder"
        try:
            plain = parse_json(read_text(path, "a state file"))
        except NotJsonError as error:
            raise InputError(f"{name} is not a state file, because it is not JSON: {error}. Delete {it}.") from error
        if not isinstance(plain, dict) or plain.get("version") != _VERSION or not isinstance(plain.get("of"), dict):
            raise InputError(f"{name} is not a state file of version {_VERSION}. Delete {it} to start over.")
        for what, value in self.of.items():
            if plain["of"].get(what) != value:
                raise InputError(
                    f"{name} is the state of another {what}: {plain['of'].get(what)!r}, and this is {value!r}. Give "
                    f"another {self._kept_in}, or delete {it} to start over."
                )
        found = plain.get("found")
        if not isinstance(found, dict) or plain.get("checksum") != _checksum(plain["of"], found):
            raise InputError(
                f"{name} is a state file that was changed after it was written: its checksum is that of other "
                f"contents. Delete {it} to start over."
            )
        return found

    def save(self, found: Mapping[str, Any]) -> None:
        """Write what was found so far: plain values, and finite numbers."""
        if self.path is None:
            return
        plain = {"version": _VERSION, "of": self.of, "checksum": _checksum(self.of, found), "found": found}
        write_text(self.path, json.dumps(plain, indent=1, allow_nan=False))

    @staticmethod
    def _remove_half_written(path: Path) -> None:
        """Remove the temporary folders of runs that were killed while they wrote; nobody else writes now."""
        name = re.compile(re.escape(f".{path.name}.") + "[a-z0-9_]{8}")
        for folder in path.parent.glob(".*"):
            if not name.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
                continue
            if {file.name for file in folder.iterdir()} <= {path.name}:
                shutil.rmtree(folder)


def release() -> str:
    """What computes here: another release of embedl-deploy or of torch may come to other results."""
    return f"embedl-deploy {version('embedl-deploy-core')}, torch {torch.__version__}"


def _checksum(of: Mapping[str, str], found: Mapping[str, Any]) -> str:
    text = json.dumps([of, found], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
