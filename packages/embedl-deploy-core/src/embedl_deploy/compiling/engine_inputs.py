"""Fits what a user passes to the inputs of an engine."""

from collections.abc import Mapping, Sequence

import torch

from embedl_deploy.engine import EngineTensor
from embedl_deploy.errors import InputError

#: Element types whose names are others in torch.
_TORCH = {"float8_e4m3": torch.float8_e4m3fn}


def fitted_inputs(
    name: str,
    wanted: Sequence[EngineTensor],
    given: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
) -> list[torch.Tensor]:
    """One tensor for each input of an engine, in its order: on the CPU, contiguous, of its type and a shape that fits.

    Floating-point numbers are converted to the engine's floating-point type; nothing else is.

    Args:
        name: The engine's, for messages.
        wanted: Its inputs.
        given: By name, or in the engine's order.

    Raises:
        InputError: Names, count, types or shapes do not fit.
    """
    found = [_fitted(name, tensor, value) for tensor, value in _paired(name, wanted, given)]
    return [value.detach().cpu().contiguous() for value in found]


def _paired(
    name: str,
    wanted: Sequence[EngineTensor],
    given: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
) -> list[tuple[EngineTensor, torch.Tensor]]:
    names = [tensor.name for tensor in wanted]
    listed = ", ".join(map(repr, names)) or "none"
    if isinstance(given, Mapping):
        missing = [each for each in names if each not in given]
        unknown = [each for each in given if each not in names]
        if missing or unknown:
            wrong = [f"{', '.join(map(repr, missing))} missing"] if missing else []
            wrong += [f"{', '.join(map(repr, unknown))} not known"] if unknown else []
            raise InputError(f"The inputs of {name} are {listed}: {'; '.join(wrong)}.")
        return [(tensor, given[tensor.name]) for tensor in wanted]
    values = [given] if isinstance(given, torch.Tensor) else list(given)
    if len(values) != len(names):
        raise InputError(f"The inputs of {name} are {listed}, but {len(values)} tensors were given.")
    return list(zip(wanted, values, strict=True))


def _fitted(name: str, wanted: EngineTensor, value: torch.Tensor) -> torch.Tensor:
    sizes = tuple(value.shape)
    fits = len(sizes) == len(wanted.shape) and all(
        own < 0 or own == size for own, size in zip(wanted.shape, sizes, strict=True)
    )
    if not fits:
        expected = "×".join("?" if size < 0 else str(size) for size in wanted.shape) or "a single number"
        shown = "×".join(map(str, sizes)) or "a single number"
        raise InputError(f"The input {wanted.name!r} of {name} has the shape {expected}, but {shown} was given.")
    dtype = _TORCH.get(wanted.dtype) or getattr(torch, wanted.dtype, None)
    if not isinstance(dtype, torch.dtype) or dtype == value.dtype:
        return value
    if dtype.is_floating_point and value.is_floating_point():
        return value.to(dtype)
    given = str(value.dtype).removeprefix("torch.")
    raise InputError(f"The input {wanted.name!r} of {name} is in {wanted.dtype}, but {given} was given.")
