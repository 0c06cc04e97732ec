"""Files: input paths that exist, atomic writes, and no file that is both input and output."""

import errno
import itertools
import os
import stat
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from embedl_deploy.errors import FileWriteError, InputError
from embedl_deploy.validation.checked import checked

#: No room on the disk, no more of what one user may have, too large for the file system.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def size_in_words(count: float) -> str:
    """Bytes in the largest unit of which they are at least a tenth: ``25.9 MB``, ``0.3 MB``, ``3.1 kB``, ``12 B``."""
    if count >= 1e5:
        return f"{count / 1e6:.1f} MB"
    return f"{count / 1e3:.1f} kB" if count >= 100 else f"{count:.0f} B"


def existing_file(path: str | os.PathLike[str], expected: str) -> Path:
    """The path of a file to read.

    Raises:
        InputError: It does not exist, or is a folder or a pipe; the message says that ``expected``
            was.
    """
    file = Path(path)
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        kind = "a link to what is not there" if file.is_symlink() else "not there"
    except ValueError as error:  # a zero byte in the name
        kind = f"no name of a file ({error})"
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise
        kind = "a link that leads to itself" if error.errno == errno.ELOOP else "longer than a file's name can be"
    else:
        if stat.S_ISREG(mode):
            return file
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device, of which nothing is read"
    raise InputError(f"{os.fspath(path)!r} is {kind}; expected {expected}.")


def read_text(path: str | os.PathLike[str], expected: str) -> str:
    """The text of a file in UTF-8; a byte-order mark, which some editors write, is not part of it.

    Raises:
        InputError: The file does not exist, or it is not a text; the message says that ``expected`` was.
    """
    try:
        return existing_file(path, expected).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{os.fspath(path)!r} is not UTF-8 text: {error.reason} at byte {error.start}; expected {expected}."
        ) from error


class NamedFile(NamedTuple):
    """A file, and what the user calls it.

    Attributes:
        name: Of the argument or option that names it, such as ``"--data"``.
        path: Where it is.
    """

    name: str
    path: Path


def refuse_overwriting(read: Sequence[NamedFile], written: Sequence[NamedFile]) -> None:
    """Look whether anything that is to be written is a file that is read, or would be written twice.

    Links of both kinds are followed, and in a folder that is read every file counts. Of two files to be written, names
    that differ in case or in the form of their accents are one: on some file systems they are.

    Args:
        read: Files and folders to be read.
        written: Files to be written, there or not.

    Raises:
        InputError: There is such a file, or one to be written is a device or a pipe.
    """
    for target in written:
        if target.path.exists() and not target.path.is_file() and not target.path.is_dir():
            raise InputError(
                f"{target.name} {str(target.path)!r} is a device or a pipe; expected a file, which is written beside "
                "it and moved there."
            )
        source = next((source for source in read if _holds(source.path, target.path)), None)
        if source is not None:
            place = "is a file of" if source.path.is_dir() else "is the same file as"
            raise InputError(
                f"{target.name} {str(target.path)!r} {place} {source.name} {str(source.path)!r}, which would be "
                "overwritten. Nothing was done; write to another file."
            )
    for first, second in itertools.combinations(written, 2):
        if _is_same(first.path, second.path) or _folded(first.path) == _folded(second.path):
            raise InputError(
                f"{first.name} {str(first.path)!r} and {second.name} {str(second.path)!r} are one file. Nothing was "
                "done; write them to different files."
            )


def _holds(source: Path, target: Path) -> bool:
    """Whether a target is a source, or a file in it."""
    if _is_same(source, target):
        return True
    if not (target.exists() and source.is_dir()):
        return False
    inside = (Path(folder) / name for folder, _, names in os.walk(source) for name in names)
    return any(_is_same(file, target) for file in inside)


def _is_same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:  # one of them is not there
        return os.path.realpath(first) == os.path.realpath(second)


def _folded(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


@checked
@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file atomically: it appears at ``path`` complete, or not at all.

    The block writes to the path that it receives, in a temporary folder on the same file system, and may write
    companion files (external weights) next to it. When the block ends without an error, the companions are moved to
    the folder of ``path``, and then the file itself, so that it never names a missing companion. If the block raises or
    the process is interrupted, nothing remains.

    Args:
        path: Where the file will be. Missing parent folders are created.

    Raises:
        FileWriteError: The file cannot be created there, or the disk is full.
    """
    if path.exists() and not path.is_file():  # a file would take its place, also that of /dev/null
        raise FileWriteError(
            f"{os.fspath(path)!r} cannot be written: it is a folder, a device or a pipe; expected a regular file, or a "
            "path that does not exist."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FileWriteError(
            f"{os.fspath(path)!r} cannot be written: no file can be created in {os.fspath(path.parent)!r} "
            f"({error.strerror or error}). Write to another folder."
        ) from error
    with place as folder:
        target = Path(folder) / path.name
        try:
            yield target
        except OSError as error:
            if error.errno not in _NO_SPACE or isinstance(error, FileWriteError):
                raise
            raise FileWriteError(
                f"{os.fspath(path)!r} cannot be written: {error.strerror}. No partial file was left. Free some space, "
                "or write to another folder."
            ) from error
        companions = sorted(file for file in Path(folder).iterdir() if file != target)
        for file in (*companions, target):
            os.replace(file, path.parent / file.name)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all, with a line's end behind it; errors as :func:`atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
