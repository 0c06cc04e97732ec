"""Reads weights from safetensors files, a tensor at a time, in the layout that Hugging Face's libraries write."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from embedl_deploy.errors import InputError
from embedl_deploy.files import existing_file, read_text
from embedl_deploy.json_text import NotJsonError, parse_json
from embedl_deploy.validation.checked import checked

INDEX = "model.safetensors.index.json"
_ONE_FILE = "model.safetensors"
#: A mapped page is resident until its file is closed: so a tensor is read in pieces, each from a file opened anew.
_PIECE = 1 << 24
#: Bytes that a fingerprint reads of each tensor, at its beginning and at its end.
_SAMPLE = 1 << 12
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        file: The file.
        shape: Its shape.
        dtype: Its type.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()


@checked
@dataclass(frozen=True)
class Shards:
    """Weights in safetensors files. :func:`open_shards` makes it; nothing but names, shapes and types is in memory.

    Attributes:
        path: The folder, or the file.
        tensors: Where each tensor is, by name.
    """

    path: Path
    tensors: Mapping[str, StoredTensor]

    @property
    def bytes(self) -> int:
        """The size of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors.values())

    @checked
    def read(self, name: str) -> torch.Tensor:
        """One tensor, in memory of its own.

        Raises:
            InputError: There is none of that name, or its file was changed or removed.
        """
        stored = self._stored(name)
        value = torch.empty(stored.shape, dtype=stored.dtype)
        if value.dim() == 0 or value.numel() == 0:
            with _opened(stored.file) as file:
                return file.get_tensor(name).clone()  # type: ignore[no-any-return]  # safetensors is untyped
        rows = max(1, _PIECE // max(1, stored.bytes // stored.shape[0]))
        for start in range(0, stored.shape[0], rows):
            with _opened(stored.file) as file:
                value[start : start + rows] = file.get_slice(name)[start : start + rows]
        return value

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes, types and the first and last values of every tensor."""
        digest = hashlib.sha256()
        for name, stored in sorted(self.tensors.items()):
            digest.update(f"{name}|{stored.dtype}|{stored.shape}\n".encode())
            if 0 in stored.shape:
                continue
            if not stored.shape:
                digest.update(self.read(name).reshape(1).view(torch.uint8).numpy().tobytes())
                continue
            rows = max(1, _SAMPLE // max(1, stored.bytes // stored.shape[0]))
            with _opened(stored.file) as file:
                for part in (slice(0, rows), slice(max(0, stored.shape[0] - rows), stored.shape[0])):
                    values = file.get_slice(name)[part].contiguous().reshape(-1).view(torch.uint8)
                    digest.update(values[:_SAMPLE].numpy().tobytes())
                    digest.update(values[-_SAMPLE:].numpy().tobytes())
        return digest.hexdigest()

    def _stored(self, name: str) -> StoredTensor:
        stored = self.tensors.get(name)
        if stored is None:
            raise InputError(f"{os.fspath(self.path)!r} has no tensor {name!r}.")
        return stored

    def __repr__(self) -> str:
        files = len({tensor.file for tensor in self.tensors.values()})
        return f"Shards({os.fspath(self.path)!r}: {len(self.tensors)} tensors in {files} files, {self.bytes} bytes)"


@checked
def open_shards(path: str | os.PathLike[str]) -> Shards:
    """Open the weights of a model, without reading them.

    Args:
        path: A folder with ``model.safetensors.index.json`` and the files that it names, or with ``model.safetensors``;
            or one file.

    Raises:
        InputError: There are none, a file is missing or damaged, or the index names a tensor that its file lacks.
    """
    place = Path(path)
    if not place.is_dir():
        file = existing_file(place, "a safetensors file, or a folder with them")
        return Shards(place, MappingProxyType(dict(_tensors_in(file))))
    if (place / INDEX).exists():
        return Shards(place, MappingProxyType(_indexed(place)))
    if (place / _ONE_FILE).exists():
        return Shards(place, MappingProxyType(dict(_tensors_in(place / _ONE_FILE))))
    raise InputError(
        f"{os.fspath(path)!r} holds neither {INDEX} nor {_ONE_FILE}; expected the folder that "
        "save_pretrained(...) of transformers writes, or one safetensors file."
    )


def _indexed(folder: Path) -> dict[str, StoredTensor]:
    index = folder / INDEX
    try:
        plain = parse_json(read_text(index, "an index of shards"))
    except NotJsonError as error:
        raise InputError(f"{os.fspath(index)!r} is not JSON: {error}.") from error
    names = plain.get("weight_map") if isinstance(plain, dict) else None
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise InputError(f"{os.fspath(index)!r} has no 'weight_map' of tensors and files.")
    found: dict[str, StoredTensor] = {}
    for file in dict.fromkeys(names.values()):
        if Path(file).name != file:
            raise InputError(f"{os.fspath(index)!r} names the file {file!r}, which is not in its folder.")
        inside = dict(_tensors_in(existing_file(folder / file, f"a file that {INDEX} names")))
        for name in (name for name, place in names.items() if place == file):
            if name not in inside:
                raise InputError(f"{INDEX} has {name!r} in {file!r}, which does not hold it.")
            found[name] = inside[name]
    return found


def _tensors_in(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    with _opened(path) as file:
        for name in file.keys():  # noqa: SIM118 - it is no dictionary
            part = file.get_slice(name)
            kind = part.get_dtype()
            if kind not in _TYPES:
                raise InputError(f"{os.fspath(path)!r} has {name!r} in the type {kind}, which is not known.")
            yield name, StoredTensor(path, tuple(part.get_shape()), _TYPES[kind])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file, mapped into memory within the block.

    Raises:
        InputError: It is not there, or not one; or the package is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise InputError("Shards need the package safetensors: pip install safetensors.") from error
    existing_file(path, "a safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{os.fspath(path)!r} is not a safetensors file, or it is damaged: {reason}") from error
