"""Whether a file computes what the model computes: the model that the user has, in the types that it has.

A file is right if its outputs are near the model's, or as near as the file's number format allows: then an output's
error is at most twice that of the model itself with every value rounded to one bit less than the format has. Rounding
is no fault, however deep the network; leaving the format's range is one. Where rounding to the grids of quantizers
leaves nothing to compare, the rest is compared, see ``off_the_grid.py``.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import ExportError
from embedl_deploy.export.arithmetic import OutOfRange, places_not_finite, run_watched
from embedl_deploy.export.jumps import Jump, first_jump
from embedl_deploy.export.off_the_grid import run_without_quantizers, without_quantizers
from embedl_deploy.export.reference import Reference, holds_finite
from embedl_deploy.export.runtime import first_not_finite, run_file
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.graph.training_mode import in_training
from embedl_deploy.logs import stage
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
        return tensors_in(self.args, self.kwargs)

    def on_cpu(self) -> "Run":
        """The same on the CPU: itself if it is there, else a copy.

        For a GPU torch takes operators apart into others (``_fused_rms_norm``), which a file has not.
        """
        tensors = [*self.model.parameters(), *self.model.buffers(), *self.tensors()]
        if all(tensor.device.type == "cpu" for tensor in tensors):
            return self
        inputs = pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, (self.args, self.kwargs))
        return replace(self, model=deep_copy(self.model).cpu(), args=inputs[0], kwargs=inputs[1])


@dataclass(frozen=True)
class File:
    """A file that is compared.

    Attributes:
        path: Where it is.
        names: Its outputs.
        dtype: Its floating-point type.
        tolerance: The largest difference that is accepted, relative to the largest output.
    """

    path: Path
    names: Sequence[str]
    dtype: torch.dtype
    tolerance: float

    def reference(self, run: Run, *, rounding: bool) -> Reference:
        """What a model gives, to compare the file with.

        Args:
            run: The model.
            rounding: Also accept what rounding does to it.
        """
        return Reference(run.model, run.args, run.kwargs, self.names, self.dtype, self.tolerance, rounding=rounding)


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
    file: File,
    constants: Sequence[str] = (),
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
        file: The file.
        constants: What became of constants that the type does not hold, for messages.
        rounding: Also accept what rounding does to the model.

    Raises:
        ExportError: The file computes something else, or leaves the range of its numbers.
    """
    stage("comparing the file with the model")
    reference = file.reference(users, rounding=rounding)
    ran = run_file(file.path, exported.tensors())
    found = ran.outputs
    reference.notes += ran.notes
    if [t.shape for t in reference.wanted] != [t.shape for t in found]:
        shapes = [[tuple(t.shape) for t in tensors] for tensors in (found, reference.wanted)]
        raise ExportError(f"{_OTHER_NUMBERS}: its outputs are of the shapes {shapes[0]}, the model's {shapes[1]}.")
    right = reference.accepts(found)
    if file.dtype is torch.float16 and (rounding or not right):
        stage("running the model in float16, operator by operator")
        arithmetic = _Float16(exported, exact, users, reference, constants)
        arithmetic.refuse_what_leaves_the_range(file.path, found, right=right)
    if not right and rounding and _finite(reference, found):
        note = agrees_off_the_grid(users, exported, exact, file)
        right = note is not None
        reference.notes += [note] if note is not None else []
    if not right:
        jump = _find_jump(exported, exact, users, found, reference)
        advice = _advice(jump, nothing_left=reference.says_nothing_of(found))
        cause, apart = in_training(exported.model), difference(reference.wanted, found)
        if cause:
            raise ExportError(f"{_OTHER_NUMBERS}: {cause} Nothing was written; it was {apart}.")
        raise ExportError(
            f"{_OTHER_NUMBERS}: {apart}; accepted: {file.tolerance:g}{reference.why_not(found)}. Nothing was written. "
            f"{_listed(constants)}{advice}"
        )
    wanted = reference.wanted
    return Judgement(difference(wanted, found), signal_to_noise(wanted, found), tuple(dict.fromkeys(reference.notes)))


def agrees_off_the_grid(
    users: Run,
    exported: Run,
    exact: nn.Module,
    file: File,
) -> str | None:
    """Whether a file of a quantized model is right but for values that fall to the other side of a step.

    Args:
        users: What the inputs are of, in the model's own types.
        exported: What was exported.
        exact: The same before it was converted to its floating-point type.
        file: The file.

    Returns:
        What to tell if it is.
    """
    found, quantizers = run_without_quantizers(file.path, exported.model, exported.tensors())
    if found is None:
        return None
    reference = file.reference(replace(users, model=without_quantizers(exact)), rounding=True)
    if [t.shape for t in reference.wanted] != [t.shape for t in found] or not reference.accepts(found):
        return None
    return (
        "Values near the edge of a step fall to either side, and in this network that changes the outputs as much as "
        f"quantization does. Without rounding activations the file agrees with the model to "
        f"{signal_to_noise(reference.wanted, found):.1f} dB, and each of its {quantizers} quantizers of activations "
        "has the model's scale."
    )


class _Float16:
    """A model in float16 as PyTorch computes it, operator by operator."""

    def __init__(
        self, exported: Run, exact: nn.Module, users: Run, reference: Reference, constants: Sequence[str]
    ) -> None:
        self.exported, self.exact, self.users = exported, exact, users
        self.reference, self.constants = reference, constants
        self.originals = dict((*exact.named_parameters(), *exact.named_buffers()))
        self.originals |= {f"input {index}": tensor for index, tensor in enumerate(users.tensors())}

    def refuse_what_leaves_the_range(self, path: Path, found: list[torch.Tensor], *, right: bool) -> None:
        """Look where numbers leave the range of the type, if the outputs of PyTorch or of the file are not right.

        Raises:
            ExportError: They do.
        """
        reference = self.reference
        computed, left = self._run()
        if computed is not None and not reference.accepts(computed):
            if left is None:
                _, left = self._run(closely=True)
            if left is not None or not _finite(reference, computed):
                raise ExportError(self._out_of_range(computed, left))
            if right:
                reference.notes.append(
                    f"As PyTorch computes it in float16, the outputs are off ({difference(reference.wanted, computed)})"
                    ", though no value leaves its range: it is rounding."
                )
        if not _finite(reference, found):
            left = left or first_not_finite(path, self.exported.tensors())
            raise ExportError(self._out_of_range(found, left))

    def _run(self, *, closely: bool = False) -> tuple[list[torch.Tensor] | None, OutOfRange | None]:
        """The outputs, and where numbers leave the range."""
        run, users = self.exported, self.users
        try:
            with run.floats:
                given = (run.model, run.args, run.kwargs, self.originals)
                computed, left = run_watched(*given, closely=closely)
                if left is not None and left.largest is None:  # is it so in the model's own types?
                    ordinary = places_not_finite(self.exact, users.args, users.kwargs)
                    computed, left = run_watched(*given, ordinary=ordinary, closely=closely)
            return computed, left
        except Exception as error:  # noqa: BLE001 - the user's code, in a type that PyTorch may have no kernels for here
            self.reference.notes.append(
                "PyTorch does not run the model in float16 here, so that only the file was compared "
                f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no message'})."
            )
            return None, None

    def _out_of_range(self, found: list[torch.Tensor], left: OutOfRange | None) -> str:
        finite = _finite(self.reference, found)
        how = f"are wrong ({difference(self.reference.wanted, found)})" if finite else "are not finite"
        where = str(left) if left is not None else "a value is infinite or no number, and it is not known where"
        return (
            f"The model does not fit into float16: {where}. Its outputs {how} there, and right in the model's own "
            f"types. Nothing was written. {_listed(self.constants)}Export in float32, or in torch.bfloat16, which has "
            "the range of float32 (with tolerance=None, as ONNX Runtime runs little of it on a CPU); or scale those "
            "values, such as a weight down and the next one up."
        )


def _find_jump(
    exported: Run, exact: nn.Module, users: Run, found: list[torch.Tensor], reference: Reference
) -> Jump | None:
    """The operator that makes much of a last bit, if that is why outputs that are finite differ."""
    if not _finite(reference, found):
        return None
    given = (users.args, users.kwargs)
    try:
        with exported.floats:
            jump = first_jump(exact, given, exported.model, (exported.args, exported.kwargs))
    except Exception:  # noqa: BLE001 - as above: types without kernels here
        jump = None
    return jump or first_jump(exact, given, exact, given, reference.digits)


def _advice(jump: Jump | None, *, nothing_left: bool) -> str:
    """What to do about a file that gives other numbers."""
    if jump is not None:
        return (
            f"Rounding is enough for it: {jump}. Behind such a place no file can be compared: compare what the model "
            "gives before it, and write the file with tolerance=None."
        )
    if nothing_left:
        return (
            "Rounding each value does as much to the model itself, with these weights and inputs; with random weights "
            "that is common. Export with trained weights and real inputs, or in a type with more digits."
        )
    return (
        "Look for operators that the exporter translates wrongly: write the file with tolerance=None, and "
        "verify_stages(..., layers=True) finds the module. Pass a larger tolerance if the difference is expected."
    )


def _listed(constants: Sequence[str]) -> str:
    """What became of constants, as sentences before another."""
    return "".join(f"{each} " for each in constants)


def _finite(reference: Reference, found: list[torch.Tensor]) -> bool:
    return all(holds_finite(x, y) for x, y in zip(reference.wanted, found, strict=True))
