"""Example inputs from shapes or from a file."""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.export import ExportedProgram

from embedl_deploy.cli.arrays import read_arrays
from embedl_deploy.cli.memory import refuse_too_large
from embedl_deploy.errors import InputError

Inputs = tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]

_SHAPE = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d{1,18}(?:[,x]\d{1,18})*)(?::(?P<dtype>\w+))?")
_UNNAMED = re.compile(r"arr_\d+")


def inputs_from_shapes(model: nn.Module | ExportedProgram, texts: Sequence[str]) -> Inputs:
    """Tensors for ``[name=]shape[:dtype]`` texts.

    Numbers with a fraction are normal, from seed 0; integers are ones, valid as an index, a token or a mask. Booleans
    are by turns false and true: whatever a mask means by them, it hides some and not all.

    Raises:
        InputError: A text has another form, or a name is not one of the model's inputs.
    """
    generator = torch.Generator().manual_seed(0)
    unnamed: list[torch.Tensor] = []
    named: dict[str, torch.Tensor] = {}
    for text in texts:
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise InputError(
                f"--input {text!r}: expected [name=]shape[:dtype], for example 1,3,224,224 or ids=1,128:int64."
            )
        dtype = _dtype(match["dtype"], text) if match["dtype"] else float_type(model)
        shape = tuple(int(size) for size in re.split("[,x]", match["shape"]))
        refuse_too_large(math.prod(shape) * dtype.itemsize, f"--input {text!r}", "Pass the shape of a usual input.")
        if dtype.is_floating_point:
            tensor = torch.randn(shape, generator=generator).to(dtype)
        elif dtype is torch.bool:
            tensor = (torch.arange(shape[-1]) % 2 == 1).expand(shape).clone()
        else:
            tensor = torch.ones(shape, dtype=dtype)
        if match["name"]:
            named[match["name"]] = tensor
        else:
            unnamed.append(tensor)
    return bind(model, unnamed, named)


def inputs_from_file(model: nn.Module | ExportedProgram, path: Path) -> Inputs:
    """The arrays of an ``.npz`` file, or the one of an ``.npy`` file.

    Arrays that ``numpy.savez`` has named itself go to the inputs in order, others by name.

    Raises:
        InputError: It is not such a file, or a name is not one of the model's inputs.
    """
    arrays = read_arrays(path)
    tensors = {name: tensor_of(array, model) for name, array in arrays.items()}
    if is_unnamed(tensors):
        return bind(model, list(tensors.values()), {})
    return bind(model, [], tensors)


def is_unnamed(arrays: Mapping[str, Any]) -> bool:
    """Whether the names are those that ``numpy.savez`` gives to arrays without one."""
    return all(_UNNAMED.fullmatch(name) for name in arrays)


def tensor_of(array: npt.NDArray[Any], model: nn.Module | ExportedProgram) -> torch.Tensor:
    """An array as a tensor; numbers with a fraction in the model's own type."""
    try:
        tensor = torch.from_numpy(np.asarray(array, order="C"))
    except (TypeError, ValueError) as error:  # no such type in torch, or bytes in the other order
        raise InputError(f"Arrays of {array.dtype} cannot be inputs: {error}") from error
    return tensor.to(float_type(model)) if tensor.is_floating_point() else tensor


def float_type(model: nn.Module | ExportedProgram) -> torch.dtype:
    """The type of the model's parameters, or float32 if it has none."""
    types = (p.dtype for p in model.parameters() if p.dtype.is_floating_point)
    return next(types, torch.float32)


def bind(
    model: nn.Module | ExportedProgram, unnamed: Sequence[torch.Tensor], named: Mapping[str, torch.Tensor]
) -> Inputs:
    """Positional and keyword inputs, as the model's ``forward`` takes them; by position where that is possible.

    Raises:
        InputError: They are not what it takes.
    """
    module = model.module() if isinstance(model, ExportedProgram) else model
    forward: Callable[..., Any] = module.forward
    signature = inspect.signature(forward)
    try:
        bound = signature.bind(*unnamed, **named)
    except TypeError as error:
        given = ", ".join([*(f"input {place}" for place in range(len(unnamed))), *named]) or "none"
        raise InputError(
            f"The inputs ({given}) do not fit {type(module).__name__}.forward{signature}: {error}."
        ) from error
    return tuple(bound.args), dict(bound.kwargs)


def _dtype(name: str, text: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise InputError(f"--input {text!r}: there is no type {name!r}; expected one such as float16, int64 or bool.")
    return dtype
