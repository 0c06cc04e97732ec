"""Compares a file with open dimensions with the model at other sizes than the example's.

A model may ask for a size (``if x.shape[0] == 1``), compute with it, or mean something else by dimension 0, as a
recurrent layer does whose sequence comes first. The exporter follows one branch, or fails where nobody looks.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import ExportError
from embedl_deploy.export.judged import File, Run
from embedl_deploy.export.judgement import agrees_off_the_grid
from embedl_deploy.export.runtime import run_onnx
from embedl_deploy.graph.derived_sizes import root_of, root_where, size_where
from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.graph.open_dimensions import OpenDimensions
from embedl_deploy.logs import stage
from embedl_deploy.verify import difference

_ADVICE = (
    "Nothing was written. Look for what in the model depends on this size, such as a branch or a literal "
    "size, or export it with this dimension fixed: dynamic_batch=False, dynamic_shapes={}."
)


def refuse_if_wrong_for_other_sizes(
    users: Run,
    exported: Run,
    exact: nn.Module,
    opened: OpenDimensions,
    file: File,
    *,
    rounding: bool,
) -> None:
    """Compare a file with the user's model for sizes of one, and of more than twice the example's.

    Dimensions of one name vary together, and with them what is computed from them (``2 * h``). A size that the
    model itself does not take is left out.

    Args:
        users: The model that the user has, on the inputs that were given.
        exported: What was exported, on the inputs of the file.
        exact: The same before it was converted to its floating-point type.
        opened: The dimensions that are open.
        file: The file.
        rounding: Also accept what rounding does to the model.

    Raises:
        ExportError: The file does not run, or computes something else.
    """
    for what, places in opened.varying_together(users.model, users.args, users.kwargs).items():
        for size in _other_sizes((users.args, users.kwargs), places):
            stage(f"comparing the file where {what} is {size}")
            args, kwargs = _of_size((users.args, users.kwargs), places, size)
            try:
                reference = file.reference(Run(users.model, args, kwargs), rounding=rounding)
            except Exception:  # noqa: BLE001 - the user's code, which need not be made for every size
                continue
            start = f"The file must be correct for every size of {what}. With {size} "
            given = _of_size((exported.args, exported.kwargs), places, size)
            try:
                found = run_onnx(file.path, *tensors_in(*given))
            except ExportError as error:
                raise ExportError(f"{start}it does not run, although the model does. {_ADVICE} {error}") from error
            shapes = [[tuple(t.shape) for t in tensors] for tensors in (found, reference.wanted)]
            if shapes[0] != shapes[1]:
                raise ExportError(
                    f"{start}its outputs have the shapes {shapes[0]}; the model's have {shapes[1]}. {_ADVICE}"
                )
            if not reference.accepts(found) and not (
                rounding
                and agrees_off_the_grid(
                    Run(users.model, args, kwargs),
                    Run(exported.model, given[0], given[1], exported.floats),
                    exact,
                    file,
                )
            ):
                raise ExportError(
                    f"{start}it does not compute what the model computes: {difference(reference.wanted, found)}; "
                    f"accepted: {file.tolerance:g}{reference.why_not(found)}. {_ADVICE}"
                )


def _other_sizes(inputs: Any, places: Sequence[dict[int, Any]]) -> Iterator[int]:
    """One, and more than twice the example's, as far as they are allowed."""
    pairs = list(zip(pytree.tree_leaves(inputs), places, strict=True))
    largest = max((root_where(dim, value.shape[at]) for value, dims in pairs for at, dim in dims.items()), default=0)
    dims = [dim for of_value in places for dim in of_value.values()]
    low = max(filter(None, (getattr(root_of(dim), "min", None) for dim in dims)), default=1)
    limits = [limit for dim in dims if (limit := getattr(root_of(dim), "max", None)) is not None]
    high = min([2 * largest + 1, *limits])
    sizes = dict.fromkeys(min(max(size, low), high) for size in (1, 2 * largest + 1) if largest)
    yield from (size for size in sizes if all(size_where(dim, size) > 0 for dim in dims))


def _of_size(inputs: Any, places: Sequence[dict[int, Any]], size: int) -> Any:
    """Inputs where these dimensions follow another size, with their values from first to last and over again."""
    leaves, structure = pytree.tree_flatten(inputs)
    for place, dims in enumerate(places):
        for at, dim in dims.items():
            there = torch.arange(size_where(dim, size), device=leaves[place].device) % leaves[place].shape[at]
            leaves[place] = leaves[place].index_select(at, there)
    return pytree.tree_unflatten(leaves, structure)
