"""Whether a file with an open batch holds for other batches than the example.

A model may ask for the batch size (``if x.shape[0] == 1``), compute with it, or mean something else by dimension 0, as
a recurrent layer does whose sequence comes first. The exporter follows one branch, or fails where nobody looks.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from embedl_deploy.errors import ExportError
from embedl_deploy.export.judgement import Run
from embedl_deploy.export.reference import Reference
from embedl_deploy.export.runtime import run_onnx
from embedl_deploy.verify import difference

_ADVICE = (
    "Nothing was written. Look for what in the model depends on the size of dimension 0, such as a branch or a literal "
    "size, or pass dynamic_batch=False."
)


def refuse_if_wrong_for_other_batches(
    users: Run,
    exported: Run,
    path: Path,
    names: Sequence[str],
    dtype: torch.dtype,
    tolerance: float,
    *,
    rounding: bool,
) -> None:
    """Compare a file with the user's model for a batch of one, and for more than twice the example's.

    A batch that the model itself does not take is left out.

    Args:
        users: The model that the user has, on the inputs that were given.
        exported: What was exported, on the inputs of the file.
        path: The file.
        names: Its outputs.
        dtype: Its floating-point type.
        tolerance: The largest difference that is accepted, relative to the largest output.
        rounding: Also accept what rounding does to the model.

    Raises:
        ExportError: The file does not run, or computes something else.
    """
    for size in _other_sizes(users.tensors()):
        args, kwargs = _of_size((users.args, users.kwargs), size)
        try:
            reference = Reference(users.model, args, kwargs, names, dtype, tolerance, rounding=rounding)
        except Exception:  # noqa: BLE001 - the user's code, which need not be made for every batch
            continue
        start = f"With dynamic_batch=True the file has to hold for every batch. With one of {size} "
        try:
            found = run_onnx(path, *_of_size(exported.tensors(), size))
        except ExportError as error:
            raise ExportError(f"{start}it does not run, and the model does. {_ADVICE} {error}") from error
        shapes = [[tuple(t.shape) for t in tensors] for tensors in (found, reference.wanted)]
        if shapes[0] != shapes[1]:
            raise ExportError(f"{start}its outputs are of the shapes {shapes[0]}, the model's {shapes[1]}. {_ADVICE}")
        if not reference.accepts(found):
            raise ExportError(
                f"{start}it does not compute what the model computes: {difference(reference.wanted, found)}; accepted: "
                f"{tolerance:g}{reference.why_not(found)}. {_ADVICE}"
            )


def _other_sizes(inputs: Sequence[torch.Tensor]) -> Iterator[int]:
    """One, and more than twice the example's."""
    sizes = {tensor.shape[0] for tensor in inputs if tensor.dim() > 0}
    if sizes:
        yield from dict.fromkeys((1, 2 * max(sizes) + 1))


def _of_size(inputs: Any, size: int) -> Any:
    """Inputs with as many rows, from first to last and over again."""

    def rows(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0:
            return tensor
        return tensor[torch.arange(size, device=tensor.device) % tensor.shape[0]]

    return pytree.tree_map_only(torch.Tensor, rows, inputs)
