"""Parameters that name files, and the check that no file is both read and written."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from embedl_deploy.files import NamedFile, refuse_overwriting


class InputFile(click.Path):
    """A file or folder to read; that it is there is for the public API to say."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def files(self, value: Path) -> list[Path]:
        """The files that are read for a value."""
        return [value]


class OutputFile(click.Path):
    """A file to write; checked before the work is done, not after.

    Args:
        companions: Endings of the names of what is written beside it.
    """

    def __init__(self, *companions: str) -> None:
        super().__init__(path_type=Path, dir_okay=False, writable=True)
        self._companions = companions

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path that a text is; an empty one would be the current folder."""
        if value == "":
            self.fail("the name of a file is empty.", param, ctx)
        return super().convert(value, param, ctx)

    def files(self, value: Path) -> list[Path]:
        """The files that are written for a value."""
        return [value, *(value.with_name(value.name + ending) for ending in self._companions)]


class OutputFolder(OutputFile):
    """A folder to write to, made if it is not there.

    Args:
        names: Names of the files that are written into it.
    """

    def __init__(self, *names: str) -> None:
        click.Path.__init__(self, path_type=Path, file_okay=False, writable=True)
        self._names = names

    def files(self, value: Path) -> list[Path]:
        """The files that are written for a value."""
        return [value / name for name in self._names]


class ModelSource(click.types.StringParamType):
    """A model: a .pt2 file, or ``package.module:factory``, whose source is read."""

    def files(self, value: str) -> list[Path]:
        """The files that are read for a value: with a module those of the packages that it is in."""
        if value.endswith(".pt2"):
            return [Path(value)]
        parts = [part for part in value.partition(":")[0].split(".") if part]
        places = [Path(folder, *parts[: count + 1]) for folder in ("", *sys.path) for count in range(len(parts))]
        sources = (file for place in places for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"))
        return [file for file in sources if file.is_file()]


_Kind = type[InputFile | OutputFile | ModelSource]


class FileCommand(click.Command):
    """A command that is not begun where something that it writes is something that it reads."""

    def invoke(self, ctx: click.Context) -> Any:
        """Check the files, then run it."""
        read, written = (list(self._files(ctx, kinds)) for kinds in ((InputFile, ModelSource), (OutputFile,)))
        refuse_overwriting(read, written)
        return super().invoke(ctx)

    def _files(
        self, ctx: click.Context, kinds: tuple[type[InputFile | OutputFile | ModelSource], ...]
    ) -> Iterator[NamedFile]:
        for parameter in self.params:
            value = ctx.params.get(str(parameter.name))
            if isinstance(parameter.type, kinds) and value is not None:
                name = (
                    max(parameter.opts, key=len) if isinstance(parameter, click.Option) else parameter.make_metavar(ctx)
                )
                for each in value if parameter.multiple else (value,):
                    yield from (NamedFile(name, path) for path in parameter.type.files(each))
