"""Errors about inputs and outputs of classes that torch.export does not know."""

from typing import Any

from torch import nn

from embedl_deploy.containers.unknown import how_to_register, unknown_container
from embedl_deploy.errors import CaptureError
from embedl_deploy.verify import run_unchanged


class UnknownContainerError(CaptureError):
    """An input or output is of a class that torch cannot take apart."""


def refuse_unknown_containers(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: CaptureError
) -> None:
    """Say of a model that torch.export has refused that this is why, if it is.

    Raises:
        UnknownContainerError: It takes or returns an object of a class that torch does not know.
    """
    for name, value in (*((f"args[{at}]", value) for at, value in enumerate(args)), *kwargs.items()):
        found = unknown_container(value, name)
        if found is not None:
            raise _refusal(f"{type(model).__name__} is given", *found) from error
    try:
        output = run_unchanged(model, args, kwargs)
    except Exception:  # noqa: BLE001 - the user's code may raise anything; it is told elsewhere
        return
    found = unknown_container(output, "output")
    if found is not None:
        raise _refusal(f"{type(model).__name__} returns", *found) from error


def _refusal(what: str, place: str, value: Any) -> UnknownContainerError:
    kind = type(value)
    return UnknownContainerError(
        f"{what} a {kind.__name__} (of {kind.__module__}) as {place}, and torch.export does not know this class. "
        f"Register it before you transform the model: {how_to_register(value)}. Or use tensors, tuples and "
        "dictionaries instead."
    )
