"""The export function: writes an ONNX file after checking and running it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from embedl_deploy.artifact import note_in_float
from embedl_deploy.capture import normalize_args
from embedl_deploy.errors import ExportError, InputError
from embedl_deploy.export.backend_operators import backend_translations
from embedl_deploy.export.casts import floats_of
from embedl_deploy.export.constants import convert_inputs, in_words
from embedl_deploy.export.failures import explain_nodes, users_lines
from embedl_deploy.export.finishing import finish_onnx
from embedl_deploy.export.judged import File, Run
from embedl_deploy.export.judgement import judge
from embedl_deploy.export.metadata import keep_modules_only
from embedl_deploy.export.naming import name_values
from embedl_deploy.export.one_file import put_into_one_file
from embedl_deploy.export.open_dimensions import (
    asked_of_tensors,
    dimensions_of_file,
    limits_of_file,
    notes_on_limits,
    notes_on_ones,
    notes_on_shapes,
    refuse_closed,
    shapes_of_inputs,
)
from embedl_deploy.export.other_sizes import refuse_if_wrong_for_other_sizes
from embedl_deploy.export.program import translated
from embedl_deploy.export.result import OnnxExport
from embedl_deploy.export.structure_names import names_in_structures
from embedl_deploy.export.tied_weights import store_once
from embedl_deploy.export.weights_later import are_later, tell_where_weights_are
from embedl_deploy.files import atomic_write
from embedl_deploy.graph.exported_inputs import check_exported_inputs
from embedl_deploy.graph.fixed_inputs import without_fixed
from embedl_deploy.graph.fixed_types import float32_inputs
from embedl_deploy.graph.inputs import require_samples, tensors_in
from embedl_deploy.graph.weights_there import require_weights
from embedl_deploy.logs import stage
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify.unfit import refuse_unfit_inputs

#: Accepted difference between ONNX Runtime and PyTorch, relative to the largest output. A value that lies between two
#: numbers of a grid may be rounded to either, which later layers see as a whole step.
_TOLERANCE, _TOLERANCE_ROUNDED = 1e-3, 5e-2
#: Protocol buffers end at 2 GiB; weights of larger models go into a second file.
_EXTERNAL_DATA_BYTES = 1_800_000_000
#: Weights that are larger lie in one until the file is checked, so that they are in memory once and not five times.
_BESIDE_BYTES = 100_000_000


@checked
def export_onnx(
    model: nn.Module | TransformationResult,
    args: Any,
    path: str | os.PathLike[str],
    *,
    kwargs: dict[str, Any] | None = None,
    opset: int | None = None,
    dtype: torch.dtype | None = None,
    integer_weights: bool = False,
    dynamic_batch: bool = False,
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    tolerance: float | Literal["auto"] | None = "auto",
) -> OnnxExport:
    """Write a model as an ONNX file.

    A quantized model is frozen first: batch norm folded, scales fixed, evaluation mode. Its quantizers become pairs of
    QuantizeLinear and DequantizeLinear, with zero points of zero unless asymmetric ranges were asked for. The file is
    written to a temporary place, checked with ``onnx.checker``, run in ONNX Runtime against PyTorch on the example
    inputs, and only then moved to ``path``.

    Args:
        model: A transformed model, its result, or any module; exported in the mode (training or evaluation) that it
            is in.
        args: Example inputs: a tuple, or one tensor.
        path: The file to write. Weights over 1.8 GB go to ``path + ".data"`` beside it.
        kwargs: Example keyword inputs.
        opset: Version of the ONNX operator set; by default the oldest that can say what the model holds, such as 18
            for float32, 19 for quantizers in float16, and 22 for bfloat16.
        dtype: Floating-point type of the file, ``torch.float32``, ``torch.float16`` or ``torch.bfloat16``; of
            everything around the quantized places, inputs, outputs and scales included. By default the model's own.
        integer_weights: Store quantized weights as numbers of their format, with DequantizeLinear only, a quarter of
            the size; otherwise in float, with QuantizeLinear and DequantizeLinear.
        dynamic_batch: Leave dimension 0 of every tensor input open. The file is compared for other batches, too. How
            large a batch may be it does not say, so ``shapes`` ends at the example's; ``dynamic_shapes`` names limits.
        dynamic_shapes: Leave these dimensions open, in the notation of ``torch.export``:
            ``{"x": {1: torch.export.Dim("length", max=512)}}``. By default those that the model was transformed with;
            ``{}`` for none. Dimensions of one name have one size. The file is compared for other sizes, too.
        input_names: Names for the inputs.
        output_names: Names for the outputs.
        tolerance: Largest difference between the file in ONNX Runtime and ``model`` as it is, in its own types, that is
            accepted, relative to the largest output; ``None`` to not run ONNX Runtime. ``"auto"`` is 1e-3, or 5e-2 for
            a file that is quantized or in 16 bits, where a value on the edge between two numbers may be rounded to
            either; or, if that is more, twice the error of the model itself when every value in it is rounded to one
            bit less than the file's format has, to 20 bits in float32. Whether the model keeps something from call to
            call, which a file does not, is found out in this comparison, too.

    Raises:
        ExportError: The exporter or the checker refuses the model, the file computes something else, or the model's
            next call does.
        InputError: An argument does not fit.
    """
    original = model.report.plan.original if isinstance(model, TransformationResult) else None
    if isinstance(model, TransformationResult):
        model = model.model
    if dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
        raise InputError(
            f"dtype is {dtype!r}; expected torch.float32, torch.float16 or torch.bfloat16, the type of what is not "
            "quantized. For fewer bits pass a model that embedl_deploy.quantize.quantize has made."
        )
    example, named = normalize_args(args, kwargs)
    if example is None:
        raise InputError("args is None; export_onnx needs example inputs, for example args=(torch.randn(1, 3, 8, 8),).")
    require_weights(model, "export_onnx")
    if tolerance is not None:
        require_samples(example, named)
    if isinstance(tolerance, (int, float)) and tolerance < 0:
        raise InputError(f"tolerance is {tolerance!r}; expected a number that is not negative, 'auto', or None.")
    target = Path(path)
    if target.is_dir() or not target.name:
        raise InputError(f"path {os.fspath(path)!r} is a folder; expected the name of a file, such as 'model.onnx'.")
    # Here, because who does not export need not wait for quantization to be imported.
    from embedl_deploy.export.prepare import (
        choose_opset,
        floating_type,
        in_signature_order,
        is_quantized,
        prepare_model,
        reasons_in_float,
        users_model,
    )

    stage("preparing the model for its file")
    given, given_inputs = model, (example, named)
    reasons = reasons_in_float(model)
    compared = users_model(model) if tolerance is not None else model
    model, exact, replaced = prepare_model(model, dtype, integer_weights=integer_weights)
    opset = choose_opset(model, opset)
    check_exported_inputs(given, example, named)
    example, named = without_fixed(given, example, named)
    named = in_signature_order(model, named)
    opened = dimensions_of_file(model, example, named, dynamic_shapes, dynamic_batch=dynamic_batch)
    given_sizes = [tuple(tensor.shape) for tensor in tensors_in(example, named)]
    example, named = opened.without_ones(model, example, named)
    users = Run(compared, example, named)
    (example, named), of_inputs = convert_inputs((example, named), dtype, float32_inputs(model, example, named))
    replaced += of_inputs
    kind = floating_type(model, (example, named))
    exported = Run(model, example, named, floats_of(model, example, named, dtype))
    operators, conflicts = backend_translations(given, opset)
    lower = bool(operators) or is_quantized(model)
    try:
        program, of_forward = translated(exported, opset, operators, opened, kind, replaced, lower=lower)
    except ExportError as error:
        refuse_unfit_inputs(original or given, *given_inputs, error)
        raise
    constants = in_words([*replaced, *of_forward], kind)
    _check_opset(program, opset)
    tell_where_weights_are(program.model)
    finish_onnx(program.model, given)
    name_values(program.model, input_names, output_names, names_in_structures(model, program, example, named))
    asked = asked_of_tensors(opened, model, example, named)
    refuse_closed(given, program.model.graph.inputs, asked)
    limits = limits_of_file(program, asked)
    of_sizes = (*notes_on_ones(given, opened), *notes_on_limits(limits))
    inputs, outputs = (
        tuple(str(value.name) for value in values)
        for values in (program.model.graph.inputs, program.model.graph.outputs)
    )
    shapes = shapes_of_inputs(limits, program.model.graph.inputs, given_sizes)
    size = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    judged = None
    with atomic_write(target) as temporary:
        lines = users_lines(program.model)
        if not are_later():  # it reads all weights
            store_once(program.model)
        keep_modules_only(program.model)
        note_in_float(program.model, reasons)
        program.save(os.fspath(temporary), external_data=size > min(_BESIDE_BYTES, _EXTERNAL_DATA_BYTES))
        stage("checking the file")
        _check(temporary, program.model, lines)
        del program  # with the weights that the exporter has computed
        if tolerance is not None:
            near = _TOLERANCE_ROUNDED if is_quantized(model) or kind is not torch.float32 else _TOLERANCE
            rounding = tolerance == "auto"
            file = File(temporary, outputs, kind, near if tolerance == "auto" else tolerance)
            judged = judge(users, exported, exact, file, constants, rounding=rounding)
            refuse_if_wrong_for_other_sizes(users, exported, exact, opened, file, rounding=rounding)
        weights = temporary.with_name(f"{temporary.name}.data")
        if weights.exists() and weights.stat().st_size <= _EXTERNAL_DATA_BYTES:
            put_into_one_file(temporary)
            weights.unlink(missing_ok=True)  # empty where no tensor of the file is large enough to lie in it
        written = sum(part.stat().st_size for part in temporary.parent.iterdir())
    return OnnxExport(
        path=target,
        opset=opset,
        input_names=inputs,
        output_names=outputs,
        size=written,
        difference=None if judged is None else judged.difference,
        sqnr=None if judged is None else judged.sqnr,
        shapes=shapes,
        notes=(
            *conflicts,
            *of_sizes,
            *notes_on_shapes(shapes, limits),
            *constants,
            *(() if judged is None else judged.notes),
        ),
    )


def _check(path: Path, model: Any, lines: Mapping[str, str]) -> None:
    """Check a file, by name so that it may be over 2 GB."""
    import onnx

    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        said = " ".join(str(error).split()).rstrip(".")
        raise ExportError(
            f"onnx.checker rejects the exported file: {said}. Nothing was written.{explain_nodes(model, lines, said)}"
        ) from error


def _check_opset(program: "torch.onnx.ONNXProgram", opset: int) -> None:
    """The exporter writes for another operator set where it cannot convert to the one that was asked for."""
    written = program.model.opset_imports.get("")
    if written != opset:
        raise ExportError(
            f"opset is {opset}, but torch's exporter writes the file for {written}: it cannot convert every "
            f"operator of the model. Nothing was written. Pass opset={written}, or leave it out."
        )
