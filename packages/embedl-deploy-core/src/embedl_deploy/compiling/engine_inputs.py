"""Fits what a user passes to the inputs of an engine."""

from collections.abc import Mapping, Sequence

import torch

from embedl_deploy.engine import EngineTensor
from embedl_deploy.errors import InputError

#: The size of open dimensions that nothing was said of.
_OPEN = 1
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


def example_inputs(
    name: str, wanted: Sequence[EngineTensor], shapes: Mapping[str, Sequence[int]], seed: int
) -> dict[str, torch.Tensor]:
    """Inputs to run an engine with.

    Args:
        name: The engine's, for messages.
        wanted: Its inputs.
        shapes: Of inputs with open dimensions; those of others are 1.
        seed: Of the random numbers.

    Raises:
        InputError: There is no such input, its shape is another, or torch has no such type.
    """
    unknown = [each for each in shapes if each not in [tensor.name for tensor in wanted]]
    if unknown:
        listed = ", ".join(repr(tensor.name) for tensor in wanted)
        raise InputError(f"shapes names {', '.join(map(repr, unknown))}, but the inputs of {name} are {listed}.")
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for tensor in wanted:
        dtype = _torch_type(tensor)
        if dtype is None:
            raise InputError(f"The input {tensor.name!r} of {name} is in {tensor.dtype}, which torch does not have.")
        sizes = shapes.get(tensor.name, tuple(_OPEN if size < 0 else size for size in tensor.shape))
        if any(size < 0 for size in sizes):
            raise InputError(f"shapes[{tensor.name!r}] is {sizes!r}; expected sizes that are not negative.")
        if dtype.is_floating_point:
            value = torch.randn(tuple(sizes), generator=generator).to(dtype)
        else:
            value = torch.ones(tuple(sizes), dtype=dtype)
        found[tensor.name] = _fitted(name, tensor, value)
    return found


def _torch_type(tensor: EngineTensor) -> torch.dtype | None:
    dtype = _TORCH.get(tensor.dtype) or getattr(torch, tensor.dtype, None)
    return dtype if isinstance(dtype, torch.dtype) else None


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
    dtype = _torch_type(wanted)
    if dtype is None or dtype == value.dtype:
        return value
    if dtype.is_floating_point and value.is_floating_point():
        return value.to(dtype)
    given = str(value.dtype).removeprefix("torch.")
    raise InputError(f"The input {wanted.name!r} of {name} is in {wanted.dtype}, but {given} was given.")
