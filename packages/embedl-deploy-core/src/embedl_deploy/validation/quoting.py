"""Quotes values in messages: always short, and never the cause of another error."""

import dataclasses
import reprlib
from typing import Any

import numpy as np
import torch
from torch import nn


class _Quoting(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlevel = 3

    def repr1(self, x: Any, level: int) -> str:
        """What people would call it, where its ``repr`` is long or says little."""
        if isinstance(x, torch.Tensor):
            return f"a tensor, {str(x.dtype).removeprefix('torch.')}{list(x.shape)}"
        if isinstance(x, np.ndarray):
            return f"an array, {x.dtype}{list(x.shape)}"
        if isinstance(x, nn.Module):
            return f"a module of class {type(x).__name__}"
        if isinstance(x, type):
            return f"the class {x.__name__}"
        if callable(x) and hasattr(x, "__qualname__"):
            return f"the function {x.__qualname__}"
        said = super().repr1(x, level)
        is_cut = dataclasses.is_dataclass(x) and len(said) >= self.maxother  # a report of many parts, say
        return f"an object of class {type(x).__name__}" if is_cut else said


_quoting = _Quoting()


def quoted(value: Any) -> str:
    """A value for a message: its ``repr``, cut if it is long; tensors, modules, classes and functions in words."""
    return _quoting.repr(value)
