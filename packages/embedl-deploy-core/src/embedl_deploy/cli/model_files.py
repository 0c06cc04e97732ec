"""Reads files with models and weights without running code that they contain.

``torch.export.load`` unpickles parts of a file if it says so; here they are refused unless the caller allows it.
"""

import logging
import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from embedl_deploy.cli.memory import refuse_too_large
from embedl_deploy.errors import CaptureError, InputError
from embedl_deploy.files import existing_file
from embedl_deploy.logs import quiet

#: Parts of a .pt2 file that hold pickled Python objects or compiled code.
_CODE_IN_PT2 = ("/opaque_obj_", "/custom_obj_", "/data/aotinductor/")
#: torch.load then reads weights only, even where torch.export asks for more.
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_program(path: Path, *, allow_pickle: bool) -> ExportedProgram:
    """Read what ``torch.export.save`` wrote.

    Raises:
        CaptureError: torch cannot read it.
        InputError: The file does not exist, it is another kind of file, or it holds code and that is not allowed.
    """
    existing_file(path, "a program that torch.export.save wrote")
    try:
        names = _names_in(path)
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{os.fspath(path)!r} is not a program that torch.export.save wrote, or it is damaged: {error}."
        ) from error
    code = [name for name in names if any(part in f"/{name}" for part in _CODE_IN_PT2)]
    if code and not allow_pickle:
        raise InputError(
            f"{os.fspath(path)!r} holds code, in {code[0]!r}. If you trust its source, pass --allow-pickle."
        )
    try:
        # What is logged is raised as well.
        with _weights_only(not allow_pickle), quiet("torch.export", below=logging.CRITICAL):
            return torch.export.load(path)
    except Exception as error:  # torch raises whatever a damaged file leads to
        raise CaptureError(
            f"{os.fspath(path)!r} cannot be loaded by torch {torch.__version__}: {type(error).__name__}: "
            f"{_first_line(error)} Was it written by torch.export.save?"
        ) from error


def load_state_dict(path: Path, *, allow_pickle: bool) -> Mapping[str, Any]:
    """Read weights: a ``.safetensors`` file, or what ``torch.save(model.state_dict(), path)`` wrote.

    Raises:
        InputError: The file does not exist, or it holds no weights, or more than weights and that is not allowed.
    """
    existing_file(path, "a file of weights")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        if zipfile.is_zipfile(path):
            _names_in(path)
        loaded = torch.load(path, map_location="cpu", weights_only=not allow_pickle)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{os.fspath(path)!r} is damaged, or holds more than weights: {_first_line(error)} "
            "If you trust its source, pass --allow-pickle; better, save model.state_dict()."
        ) from error
    except Exception as error:  # torch raises whatever a damaged file leads to
        raise InputError(
            f"{os.fspath(path)!r} cannot be read as weights: {type(error).__name__}: {_first_line(error)} "
            "Write it with torch.save(model.state_dict(), path)."
        ) from error
    if isinstance(loaded, torch.nn.Module):
        loaded = loaded.state_dict()
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):  # a training checkpoint
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{os.fspath(path)!r} holds a {type(loaded).__name__}; expected a state_dict.")
    for name in loaded:
        if not isinstance(name, str):
            raise InputError(f"{os.fspath(path)!r} has an entry {name!r}; expected a state_dict, by names of tensors.")
    return loaded


def _names_in(path: Path) -> list[str]:
    """The names of an archive's parts, which fit into memory.

    Raises:
        InputError: They do not.
        zipfile.BadZipFile: It is not an archive.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(each.file_size for each in archive.infolist())
        refuse_too_large(unpacked, f"{os.fspath(path)!r} unpacked", "Write it without compression, as torch does.")
        return archive.namelist()


def _safetensors(path: Path) -> Mapping[str, Any]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f"{os.fspath(path)!r} needs the package safetensors: pip install safetensors.") from error
    try:
        return load_file(path)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:  # unknown types
        raise InputError(
            f"{os.fspath(path)!r} is not a safetensors file, or it is damaged: {_first_line(error)}"
        ) from error


@contextmanager
def _weights_only(wanted: bool) -> Iterator[None]:
    before = os.environ.get(_WEIGHTS_ONLY)
    if wanted:
        os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if wanted and before is None:
            del os.environ[_WEIGHTS_ONLY]


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    return line if line.endswith((".", "?", "!")) else f"{line}."
