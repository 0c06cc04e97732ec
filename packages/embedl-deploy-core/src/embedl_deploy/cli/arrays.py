"""Reads arrays from .npy and .npz files, which may be damaged or malicious.

Nothing is unpickled, and what a file declares is compared with what it holds before memory is taken for it.
"""

import os
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import numpy.typing as npt

from embedl_deploy.cli.memory import refuse_too_large
from embedl_deploy.errors import InputError
from embedl_deploy.files import existing_file

_MAGIC = b"\x93NUMPY"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
#: What numpy raises for headers, and zipfile for archives, that are damaged.
_DAMAGED = (
    *(ValueError, TypeError, KeyError, SyntaxError, OverflowError, RecursionError, MemoryError, EOFError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an ``.npz`` or ``.npy`` file, by name.

    Raises:
        InputError: The file does not exist, it holds something else, it is damaged, or it takes more memory than there
            is.
    """
    existing_file(path, "an .npz or .npy file")
    size = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(len(_MAGIC)) == _MAGIC:
            stream.seek(0)
            return {"arr_0": _array(stream, size, repr(os.fspath(path)))}
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = _unpacked(archive, path)
    except _DAMAGED as error:
        if isinstance(error, InputError):
            raise
        _refuse(repr(os.fspath(path)), error)
    if not arrays:
        raise InputError(f"{os.fspath(path)!r} holds no arrays.")
    return arrays


def _unpacked(archive: zipfile.ZipFile, path: Path) -> dict[str, npt.NDArray[Any]]:
    members = archive.infolist()
    advice = "If it is what you mean, keep fewer samples in it."
    refuse_too_large(sum(each.file_size for each in members), f"{os.fspath(path)!r} unpacked", advice)
    found = {}
    for member in members:
        what = f"{member.filename!r} in {os.fspath(path)!r}"
        with archive.open(member) as stream:
            found[member.filename.removesuffix(".npy")] = _array(stream, member.file_size, what)
    return found


def _array(stream: IO[bytes], size: int, what: str) -> npt.NDArray[Any]:
    """The array in a stream of ``size`` bytes."""
    try:
        version = np.lib.format.read_magic(stream)
        # Version 3 is version 2 with names of fields in UTF-8, and fields are refused.
        shape, in_columns, dtype = _HEADERS.get(version, np.lib.format.read_array_header_2_0)(stream)
    except _DAMAGED as error:
        _refuse(what, error)
    if dtype.hasobject or dtype.fields is not None or any(type(length) is not int or length < 0 for length in shape):
        _refuse(what, ValueError(f"it has the type {dtype} and the shape {shape}"))
    count = 1
    for length in shape:
        count *= length
    expected, there = count * dtype.itemsize, size - stream.tell()
    if expected != there:
        _refuse(what, ValueError(f"shape {shape} of {dtype} is {expected} bytes, but it holds {there}"))
    refuse_too_large(expected, what, "Keep fewer samples in it.")
    if not expected:
        return np.zeros(shape, dtype)
    content = np.empty(expected, np.uint8)
    try:
        read = stream.readinto(content.data)  # type: ignore[attr-defined]  # files and zip members have it
    except _DAMAGED as error:
        _refuse(what, error)
    if read != expected:
        _refuse(what, EOFError(f"it ends after {read} of {expected} bytes"))
    return content.view(dtype).reshape(shape, order="F" if in_columns else "C")


def _refuse(what: str, error: Exception) -> NoReturn:
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = reason if len(reason) <= 200 else f"{reason[:200]}…"
    raise InputError(
        f"{what} is not an .npz or .npy file of plain arrays, or it is damaged: {reason.rstrip('.')}. Write it with "
        "numpy.save or numpy.savez, without pickled objects."
    ) from error
