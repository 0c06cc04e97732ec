"""Finds NaN and infinity in the model's own tensors, which calibration data cannot fix."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from embedl_deploy.errors import NotFiniteError, QuantizationError


def require_finite(parts: Iterable[tuple[str, nn.Module]]) -> None:
    """Refuse modules, by path, whose weights, biases or statistics hold NaN or infinity.

    Raises:
        QuantizationError: One does; the message names the tensor.
    """
    for path, module in parts:
        bad = _not_finite(module, path)
        if bad:
            raise QuantizationError(
                f"The model itself contains NaN or infinity, independent of the calibration data: {_listed(bad)}. "
                "Check the checkpoint that was loaded, or the training run that produced it.",
                tensor=next(iter(bad)),
            )


@contextmanager
def blaming_the_model(model: nn.Module) -> Iterator[None]:
    """Within the block an error about NaN or infinity in calibration also names the model's tensors that hold any."""
    try:
        yield
    except NotFiniteError as error:
        bad = _not_finite(model, "")
        if not bad:
            raise
        raise QuantizationError(
            f"{error} The model itself contains such values: {_listed(bad)}. If they are the cause, check the "
            "checkpoint that was loaded, or the training run that produced it.",
            tensor=error.tensor,
        ) from error


def _not_finite(module: nn.Module, path: str) -> dict[str, str]:
    """Parameters with NaN or infinity and buffers with NaN, and how many values of how many.

    Buffers hold masks, which may be infinite, and scales of quantizers, which are NaN until they are found.
    """
    found = {}
    for name, tensor in (*module.named_parameters(path), *module.named_buffers(path)):
        if not tensor.dtype.is_floating_point or tensor.dtype.itemsize == 1 or name.endswith(".quantizer.scale"):
            continue
        bad = ~torch.isfinite(tensor) if isinstance(tensor, nn.Parameter) else torch.isnan(tensor)
        if bool(bad.any()):
            found[name] = f"{int(bad.sum())} of {tensor.numel()} values"
    return found


def _listed(bad: dict[str, str]) -> str:
    entries = [f"{name!r} ({count})" for name, count in bad.items()]
    return ", ".join(entries[:4]) + (f" and {len(entries) - 4} more" if len(entries) > 4 else "")
