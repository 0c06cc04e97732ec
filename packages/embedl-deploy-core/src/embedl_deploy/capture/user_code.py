"""Finds the lines of the model's own code in tracebacks and running frames."""

import linecache
import os
import sys
import traceback
from types import CodeType
from typing import Any

import torch
from torch import fx, nn

_OF_PYTHON = os.path.dirname(os.__file__)
_NOT_USER_CODE = (
    os.path.join(os.path.dirname(torch.__file__), ""),
    os.path.join(os.path.dirname(os.path.dirname(__file__)), ""),
    "<eval_with_key>",
    "<frozen ",
)


def is_user_code(filename: str) -> bool:
    """Whether a file is neither torch's nor ours nor of Python's library."""
    if filename.startswith(_OF_PYTHON) and "site-packages" not in filename:
        return False
    return not filename.startswith(_NOT_USER_CODE)


def user_line(error: BaseException) -> tuple[str | None, str]:
    """File and line, and text, of the innermost line of the model's code that an error went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if is_user_code(frame.filename):
            return f"{frame.filename}:{frame.lineno}", _text(frame.filename, frame.lineno or 0)
    return None, ""


def raising_module(model: nn.Module, error: BaseException) -> str:
    """Path of the innermost module of a model that an error went through; ``""`` for the model itself."""
    paths = {id(module): path for path, module in model.named_modules()}
    path = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        path = paths.get(id(frame.f_locals.get("self")), path)
    return path


def place_in_words(model: nn.Module, path: str, source: str | None, code: str) -> str:
    """``in module 'a' (A), at file:line:``, with the text of the line below it."""
    module = model.get_submodule(path)
    where = f"in module {path!r} ({type(module).__name__})" if path else "in the model's own forward"
    return where if source is None else f"{where}, at {source}:\n    {code}"


def note_source(node: fx.Node, until: CodeType) -> None:
    """Note the line of the model's code that is running as that of a node, where and as ``torch.export`` does.

    Args:
        node: The node.
        until: The function that has called the model: whatever has called that is not code of the model.
    """
    source, code = running_line(until)
    if source is not None:
        file, _, line = source.rpartition(":")
        node.meta["stack_trace"] = f'  File "{file}", line {line}, in forward\n    {code}'


def running_line(until: CodeType | None = None) -> tuple[str | None, str]:
    """File and line, and text, of the innermost line of the model's code that is running, within ``until`` if given."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code is not until:
        if is_user_code(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}", _text(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None, ""


def _text(filename: str, line: int) -> str:
    return linecache.getline(filename, line).strip()
