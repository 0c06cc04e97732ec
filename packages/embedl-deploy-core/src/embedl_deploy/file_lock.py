"""A lock on a file's name, which the operating system takes back when its process ends, however it ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedl_deploy.errors import FileWriteError, InputError

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

    def _unlock(handle: int) -> None:
        os.lseek(handle, 0, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_UN)


@contextmanager
def used_alone(path: Path) -> Iterator[None]:
    """Within the block nobody else uses a file, in this process or in another that asks in the same way.

    A hidden file beside it is locked, not the file itself, which may be replaced meanwhile.

    Args:
        path: The file, there or not. Missing parent folders are created.

    Raises:
        InputError: Somebody else uses it.
        FileWriteError: No file can be created in its folder.
    """
    beside = path.parent / f".{path.name}.lock"
    handle = _opened_and_locked(path, beside)
    while handle is None:
        handle = _opened_and_locked(path, beside)
    try:
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no open file; one that nobody has locked does no harm
            beside.unlink(missing_ok=True)
        _unlock(handle)
        os.close(handle)


def _opened_and_locked(path: Path, beside: Path) -> int | None:
    """The locked file; ``None`` if who had it before removed it between opening and locking."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FileWriteError(
            f"{os.fspath(path)!r} cannot be used: no file can be created in {os.fspath(path.parent)!r} "
            f"({error.strerror or error}). Write to another folder."
        ) from error
    try:
        _lock(handle)
        if beside.exists() and os.path.samestat(os.fstat(handle), beside.stat()):
            return handle
    except (BlockingIOError, PermissionError):  # the one by Linux and macOS, the other by Windows
        os.close(handle)
        raise InputError(
            f"{os.fspath(path)!r} is used by another run at this moment. Wait until that ends, or give another file."
        ) from None
    except FileNotFoundError:  # it was removed just now
        pass
    os.close(handle)
    return None
