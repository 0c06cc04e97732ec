"""What a file can return: tensors."""

from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import ExportError
from embedl_deploy.verify import run_unchanged


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
    leaves, _ = pytree.tree_flatten_with_path(outputs)
    wrong = [(path, leaf) for path, leaf in leaves if leaf is not None and not isinstance(leaf, torch.Tensor)]
    if wrong:
        places = ", ".join(f"output{pytree.keystr(path)} = {leaf!r} ({type(leaf).__name__})" for path, leaf in wrong)
        raise ExportError(
            f"{type(model).__name__} cannot be exported to ONNX: it returns what is no tensor: {places}. A file "
            "returns tensors only. Return torch.tensor(value), or leave the output out of what forward returns."
        ) from cause
