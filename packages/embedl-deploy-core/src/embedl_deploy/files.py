"""Files: there to be read, or written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedl_deploy.errors import InputError


def existing_file(path: str | os.PathLike[str], expected: str) -> Path:
    """The path of a file to read.

    Raises:
        InputError: There is nothing, or a folder; the message says that ``expected`` was.
    """
    file = Path(path)
    if not file.is_file():
        kind = "a folder" if file.is_dir() else "not there"
        raise InputError(f"{os.fspath(path)!r} is {kind}; expected {expected}.")
    return file


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; what lies beside it is moved to ``path``'s folder when the block ends well.

    The block writes into an empty folder on the same file system, under the name of ``path``, and may write companion
    files (external weights) beside it. Companions are moved first, so the main file never names one that is missing.
    When the block raises, or the process is interrupted in it, nothing remains.

    Args:
        path: Where the file is to be in the end. Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        target = Path(folder) / path.name
        yield target
        companions = sorted(file for file in Path(folder).iterdir() if file != target)
        for file in (*companions, target):
            os.replace(file, path.parent / file.name)
