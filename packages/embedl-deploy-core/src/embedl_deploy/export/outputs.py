"""The outputs of a model as tensors, which is all that a file can return."""

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.containers.paths import leaves_with_paths
from embedl_deploy.containers.unknown import how_to_register
from embedl_deploy.errors import ExportError
from embedl_deploy.verify import run_unchanged

#: Outputs that an error lists, and characters of each.
_SHOWN, _LONGEST = 5, 80


def refuse_outputs_without_tensor(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], cause: Exception
) -> None:
    """Once an export has failed: find out whether the model's outputs are the reason.

    Raises:
        ExportError: An output is neither a tensor nor ``None``; it is named by its place.
    """
    try:
        outputs = run_unchanged(model, args, kwargs)
    except Exception:  # noqa: BLE001 - the user's code may raise anything; then the export's own error says more
        return
    wrong = [
        (path, leaf)
        for path, leaf in leaves_with_paths(outputs)
        if leaf is not None and not isinstance(leaf, torch.Tensor)
    ]
    if wrong:
        places = ", ".join(f"output{pytree.keystr(path)} = {_briefly(leaf)}" for path, leaf in wrong[:_SHOWN])
        if len(wrong) > _SHOWN:
            places += f", and {len(wrong) - _SHOWN} more"
        container = next((leaf for _, leaf in wrong if _is_container(leaf)), None)
        if container is not None:
            raise ExportError(
                f"{type(model).__name__} cannot be exported to ONNX: it returns what tensors cannot be found in: "
                f"{places}. Return a tuple, a dictionary or a named tuple of tensors, or make the class known: "
                f"{how_to_register(container)}."
            ) from cause
        raise ExportError(
            f"{type(model).__name__} cannot be exported to ONNX: it returns what is not a tensor: {places}. A file "
            "returns tensors only. Return torch.tensor(value), or leave the output out of what forward returns."
        ) from cause


def _is_container(leaf: Any) -> bool:
    """Whether an output may hold tensors: neither a plain value nor a text."""
    return dataclasses.is_dataclass(leaf) or not isinstance(leaf, (bool, int, float, complex, str, bytes, torch.dtype))


def _briefly(leaf: Any) -> str:
    """A value with its type; of objects that may hold tensors the type alone."""
    kind = type(leaf).__name__
    if dataclasses.is_dataclass(leaf):
        return f"a dataclass {kind} with the fields {', '.join(field.name for field in dataclasses.fields(leaf))}"
    return f"an object of type {kind}" if _is_container(leaf) else f"{repr(leaf)[:_LONGEST]} ({kind})"
