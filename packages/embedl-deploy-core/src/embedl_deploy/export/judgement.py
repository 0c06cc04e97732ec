"""Compares a file with the user's own model, in the model's own types.

A file is right if its outputs are near the model's, or as near as the file's number format allows: then an output's
error is at most twice that of the model itself with every value rounded to one bit less than the format has. Rounding
is not a fault, however deep the network; leaving the format's range is one. Where rounding to the grids of quantizers
leaves nothing to compare, the rest is compared, see ``off_the_grid.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx, nn

from embedl_deploy.errors import ExportError
from embedl_deploy.export.float16 import InFloat16, listed
from embedl_deploy.export.judged import File, Run
from embedl_deploy.export.jumps import Jump, first_jump
from embedl_deploy.export.off_the_grid import run_without_quantizers, without_quantizers
from embedl_deploy.export.reference import Reference
from embedl_deploy.export.runtime import run_file
from embedl_deploy.graph.dead_code import draws
from embedl_deploy.graph.metadata import module_path_of
from embedl_deploy.graph.training_mode import in_training
from embedl_deploy.logs import stage
from embedl_deploy.verify import Difference, difference, signal_to_noise

_OTHER_NUMBERS = "The exported file does not compute what the model computes"


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
        if any(t.is_complex() for t in reference.wanted):
            raise ExportError(
                "An output of the model is complex, which the exporter writes as real and imaginary parts along one "
                "more axis, so the file gives other shapes than the model. Return torch.view_as_real(y) in place of y."
            )
        shapes = [[tuple(t.shape) for t in tensors] for tensors in (found, reference.wanted)]
        raise ExportError(f"{_OTHER_NUMBERS}: its outputs have the shapes {shapes[0]}; the model's have {shapes[1]}.")
    right = reference.accepts(found)
    if file.dtype is torch.float16 and (rounding or not right):
        stage("running the model in float16, operator by operator")
        arithmetic = InFloat16(exported, exact, users, reference, constants)
        arithmetic.refuse_what_leaves_the_range(file.path, found, right=right)
    if not right and rounding and reference.all_finite(found):
        note = agrees_off_the_grid(users, exported, exact, file)
        right = note is not None
        reference.notes += [note] if note is not None else []
    if not right:
        if drawing := _drawing(exact):
            raise ExportError(f"{_OTHER_NUMBERS}: {drawing} Nothing was written.")
        jump = _find_jump(exported, exact, users, found, reference)
        advice = _advice(jump, nothing_left=reference.says_nothing_of(found))
        cause, apart = in_training(exported.model), difference(reference.wanted, found)
        if cause:
            raise ExportError(f"{_OTHER_NUMBERS}: {cause} The difference is {apart}. Nothing was written.")
        raise ExportError(
            f"{_OTHER_NUMBERS}: {apart}; accepted: {file.tolerance:g}{reference.why_not(found)}. Nothing was written. "
            f"{listed(constants)}{advice}"
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
        "Values near the edge of a quantization step may be rounded to either side, and in this network that changes "
        "the outputs as much as quantization does. Without rounding activations, the outputs of the file have an SQNR "
        f"of {signal_to_noise(reference.wanted, found):.1f} dB, and all its {quantizers} activation quantizers have "
        "the model's scales."
    )


def _drawing(model: nn.Module) -> str:
    """That a model draws random numbers, if it does; empty if not."""
    nodes = model.graph.nodes if isinstance(model, fx.GraphModule) else ()
    node = next((node for node in nodes if node.op in ("call_function", "call_method") and draws(node)), None)
    if node is None:
        return ""
    path = module_path_of(node)
    where = f" in module {path!r}" if path else ""
    return (
        f"it draws random numbers ({node.name}{where}), which are others in each run, so no two runs can be compared. "
        "Make them an input of the model, or write the file with tolerance=None."
    )


def _find_jump(
    exported: Run, exact: nn.Module, users: Run, found: list[torch.Tensor], reference: Reference
) -> Jump | None:
    """The operator that makes much of a last bit, if that is why outputs that are finite differ."""
    if not reference.all_finite(found):
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
            f"Rounding alone causes it: {jump}. Outputs that depend on this operator cannot be compared. Compare what "
            "the model computes before it, and write the file with tolerance=None."
        )
    if nothing_left:
        return (
            "With these weights and inputs, rounding each value changes the model itself as much, which is common with "
            "random weights. Export with trained weights and real inputs, or in a more precise type."
        )
    return (
        "The exporter may translate an operator wrongly: write the file with tolerance=None, and find the module with "
        "verify_stages(..., layers=True). If the difference is expected, pass a larger tolerance."
    )
