"""The page of `report --html`: from JSON files that other commands wrote."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedl_deploy.engine import EngineReport, compare
from embedl_deploy.errors import InputError
from embedl_deploy.files import read_text
from embedl_deploy.json_text import NotJsonError, parse_json
from embedl_deploy.page import parts_of, write_page

_EXPECTED = "JSON that a command printed with --json, a plan, or an engine's report"


@dataclass(frozen=True)
class PageFiles:
    """What a page is to be made of.

    Attributes:
        files: JSON files. Of two that tell the same, the first counts; a second engine's report is what the first one
            is compared with.
        commands: Commands that make the run again.
        title: Of the page; by default the name of the first file.
    """

    files: Sequence[Path]
    commands: Sequence[str]
    title: str | None

    def written(self, path: Path) -> tuple[list[str], EngineReport | None]:
        """Write the page.

        Returns:
            What it is about, and the engine's report if there is one.

        Raises:
            InputError: A file holds nothing that a page shows, or is damaged.
        """
        parts: dict[str, Any] = {}
        engines: list[EngineReport] = []
        for file in self.files:
            for name, part in _parts_in(file).items():
                if name == "engine":
                    engines.append(_engine(part, file))
                else:
                    parts.setdefault(name, part)
        if len(engines) > 2:
            raise InputError(f"A page compares two engines, and {len(engines)} reports of engines are given.")
        if engines:
            parts["engine"] = engines[0]
        if len(engines) == 2:
            parts.setdefault("comparison", compare(engines[1], engines[0]))
        write_page(path, **parts, commands=[*self.commands, self._own(path)], title=self.title or self.files[0].stem)
        return list(parts), engines[0] if engines else None

    def _own(self, path: Path) -> str:
        first, *others = map(str, self.files)
        more = [word for other in others for word in ("--with", other)]
        return shlex.join(["embedl-deploy", "report", first, *more, "--html", str(path)])


def _parts_in(file: Path) -> dict[str, Any]:
    try:
        plain = parse_json(read_text(file, _EXPECTED))
    except NotJsonError as error:
        raise InputError(f"{str(file)!r} is no JSON: {error}; expected {_EXPECTED}.") from error
    found = parts_of(plain) if isinstance(plain, dict) else {}
    if not found:
        raise InputError(f"{str(file)!r} holds nothing that a page shows; expected {_EXPECTED}.")
    return found


def _engine(plain: dict[str, Any], file: Path) -> EngineReport:
    try:
        return EngineReport.from_dict(plain)
    except InputError as error:
        raise InputError(f"{str(file)!r}: {error}") from error
