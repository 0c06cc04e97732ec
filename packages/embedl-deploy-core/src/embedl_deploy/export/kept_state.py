"""Refusing models with state: a file would compute the first call's outputs in every call."""

from collections.abc import Sequence

import torch
from torch import nn

from embedl_deploy.errors import ExportError
from embedl_deploy.verify import difference

#: Relative to the largest output. The same model on the same inputs, with the same random numbers: only the order of
#: sums may differ, on some devices.
_SAME = 1e-5


def refuse_what_only_the_first_call_gives(
    model: nn.Module, first: Sequence[torch.Tensor], again: Sequence[torch.Tensor], changed: Sequence[str]
) -> None:
    """Refuse a model whose next call gives something else.

    Args:
        model: The model.
        first: What it gives.
        again: What it gives to the same inputs when it is called again.
        changed: The attributes that the first call changed.

    Raises:
        ExportError: It is such a model.
    """
    if not changed:
        return
    if [tensor.shape for tensor in first] == [tensor.shape for tensor in again]:
        apart = difference(list(first), list(again))
        if apart.max_rel <= _SAME:
            return
        how = str(apart)
    else:
        how = f"of the shapes {[tuple(t.shape) for t in again]}, after {[tuple(t.shape) for t in first]}"
    kept = ", ".join(map(repr, changed[:5])) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
    raise ExportError(
        f"A file would be correct in its first call only: forward of {type(model).__name__} keeps {kept} for the next "
        f"call, and a file keeps nothing. Called again with the same inputs, the model's outputs differ ({how}). "
        "Nothing was written. Make the state an input and an output of forward; or pass tolerance=None to write the "
        "file of the first call."
    )
