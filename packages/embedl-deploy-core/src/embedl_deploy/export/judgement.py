"""Whether a file computes what the model computes: the model that the user has, in the types that it has.

A file is right if its outputs are near the model's, or as near as the file's number format allows: then an output's
error is at most twice that of the model itself with every value rounded to one bit less than the format has. Rounding
is no fault, however deep the network; leaving the format's range is one.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import ExportError
from embedl_deploy.export.arithmetic import OutOfRange, run_watched
from embedl_deploy.export.reference import Reference, holds_finite
from embedl_deploy.export.runtime import first_not_finite, run_onnx
from embedl_deploy.verify import Difference, difference, signal_to_noise

_OTHER_NUMBERS = "The exported file does not compute what the model computes"


@dataclass(frozen=True)
class Run:
    """A model and what it is run on.

    Attributes:
        model: The model.
        args: Its inputs.
        kwargs: Its keyword inputs.
        floats: What to run it in.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    floats: AbstractContextManager[Any] = field(default_factory=nullcontext)

    def tensors(self) -> list[torch.Tensor]:
        """Its inputs, as a file has them."""
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, torch.Tensor)]


@dataclass(frozen=True)
class Judgement:
    """How far a file is from the model.

    Attributes:
        difference: The largest difference.
        sqnr: Signal to quantization noise over all outputs, 10·log₁₀(Σ y² / Σ (y' − y)²), in dB.
        notes: What to know about the comparison.
    """

    difference: Difference
    sqnr: float
    notes: tuple[str, ...]


def judge(
    users: Run,
    exported: Run,
    exact: nn.Module,
    path: Path,
    names: Sequence[str],
    dtype: torch.dtype,
    tolerance: float,
    *,
    rounding: bool,
) -> Judgement:
    """Run a file, and compare it with the model that the user has.

    A file in float16 is also compared as PyTorch computes it: on a CPU, ONNX Runtime computes much of it in float32,
    which hardware will not do.

    Args:
        users: That model, on the inputs that were given.
        exported: What was exported, on the inputs of the file: frozen, and of its floating-point type.
        exact: The same as ``exported`` before it was converted to that type.
        path: The file.
        names: Its outputs.
        dtype: Its floating-point type.
        tolerance: The largest difference that is accepted, relative to the largest output.
        rounding: Also accept what rounding does to the model.

    Raises:
        ExportError: The file computes something else, or leaves the range of its numbers.
    """
    reference = Reference(users.model, users.args, users.kwargs, names, dtype, tolerance, rounding=rounding)
    found = run_onnx(path, *exported.tensors())
    if [t.shape for t in reference.wanted] != [t.shape for t in found]:
        shapes = [[tuple(t.shape) for t in tensors] for tensors in (found, reference.wanted)]
        raise ExportError(f"{_OTHER_NUMBERS}: its outputs are of the shapes {shapes[0]}, the model's {shapes[1]}.")
    right = reference.accepts(found)
    if dtype is torch.float16 and (rounding or not right):
        computed, left = _in_pytorch(exported, exact, users.tensors(), reference)
        if computed is not None and not reference.accepts(computed):
            raise ExportError(_out_of_range(reference, computed, left, dtype))
        if not _finite(reference, found):
            left = left or first_not_finite(path, exported.tensors())
            raise ExportError(_out_of_range(reference, found, left, dtype))
    if not right:
        raise ExportError(
            f"{_OTHER_NUMBERS}: {difference(reference.wanted, found)}; "
            f"accepted: {tolerance:g}{reference.why_not(found)}. Nothing was "
            "written. Look for operators that the exporter translates wrongly: write the file with "
            "tolerance=None, and verify_stages(..., layers=True) finds the module. Pass a larger tolerance if the "
            "difference is expected."
        )
    wanted = reference.wanted
    return Judgement(difference(wanted, found), signal_to_noise(wanted, found), tuple(dict.fromkeys(reference.notes)))


def _in_pytorch(
    exported: Run, exact: nn.Module, inputs: list[torch.Tensor], reference: Reference
) -> tuple[list[torch.Tensor] | None, OutOfRange | None]:
    """The outputs of what was exported, computed by PyTorch, and where it leaves the range of its numbers."""
    originals = dict((*exact.named_parameters(), *exact.named_buffers()))
    originals |= {f"input {index}": tensor for index, tensor in enumerate(inputs)}
    try:
        with exported.floats:
            return run_watched(exported.model, exported.args, exported.kwargs, originals)
    except Exception as error:  # noqa: BLE001 - the user's code, in a type that PyTorch may have no kernels for here
        reference.notes.append(
            "PyTorch does not run the model in float16 here, so that only the file was compared "
            f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'})."
        )
        return None, None


def _finite(reference: Reference, found: list[torch.Tensor]) -> bool:
    return all(holds_finite(x, y) for x, y in zip(reference.wanted, found, strict=True))


def _out_of_range(reference: Reference, found: list[torch.Tensor], left: OutOfRange | None, dtype: torch.dtype) -> str:
    kind = str(dtype).removeprefix("torch.")
    where = str(left) if left is not None else f"what it computes is not all between 6e-08 and 65504, as {kind} is"
    how = "are not finite" if not _finite(reference, found) else f"are wrong ({difference(reference.wanted, found)})"
    return (
        f"The model does not fit into {kind}: {where}. Its outputs {how} there, and right in the model's own types. "
        "Nothing was written. Export in float32, or in torch.bfloat16, which has the range of float32; or "
        "scale those values, such as a weight down and the next one up."
    )
