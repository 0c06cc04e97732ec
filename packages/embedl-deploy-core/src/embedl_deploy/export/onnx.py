"""Export to ONNX, checked before the file appears."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from embedl_deploy.artifact import note_in_float
from embedl_deploy.capture import normalize_args
from embedl_deploy.errors import ExportError, InputError
from embedl_deploy.export.attention import ExportableAttention
from embedl_deploy.export.backend_operators import backend_translations
from embedl_deploy.export.batch import check_open_batch, dynamic_first_dimension, without_batch_of_one
from embedl_deploy.export.outputs import refuse_outputs_without_tensor
from embedl_deploy.export.runtime import difference_in_onnxruntime, sensitivity
from embedl_deploy.files import written_whole
from embedl_deploy.graph.collector import collector_paused
from embedl_deploy.graph.inputs import describe_inputs
from embedl_deploy.graph.placement import describe_failed_module
from embedl_deploy.logs import quiet
from embedl_deploy.pipeline import TransformationResult
from embedl_deploy.verify import Difference

#: Accepted difference between ONNX Runtime and PyTorch, relative to the largest output. A value that lies between two
#: numbers of a grid may be rounded to either, which later layers see as a whole step.
_TOLERANCE, _TOLERANCE_ROUNDED, _TOLERANCE_AT_MOST = 1e-3, 5e-2, 0.5
#: Protocol buffers end at 2 GiB; weights of larger models go into a second file.
_EXTERNAL_DATA_BYTES = 1_800_000_000


@dataclass(frozen=True)
class OnnxExport:
    """A written ONNX file.

    Attributes:
        path: Where it is.
        opset: Version of the ONNX operator set.
        input_names: Names of the graph's inputs, in order.
        output_names: Names of its outputs, in order.
        size: Bytes of the file and of its external weights.
        difference: How far ONNX Runtime's outputs are from PyTorch's on the example inputs; ``None`` if that was not
            measured.
    """

    path: Path
    opset: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    size: int
    difference: Difference | None


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
        dtype: Floating-point type of the file, such as ``torch.float16``: of everything around the quantized places,
            inputs, outputs and scales included. By default the model's own.
        integer_weights: Store quantized weights as numbers of their format, with DequantizeLinear only, a quarter of
            the size; otherwise in float, with QuantizeLinear and DequantizeLinear.
        dynamic_batch: Leave dimension 0 of every tensor input open.
        input_names: Names for the inputs.
        output_names: Names for the outputs.
        tolerance: Largest difference between ONNX Runtime and PyTorch, relative to the largest output, that is
            accepted; ``None`` to not run ONNX Runtime. ``"auto"`` is 1e-3, or 5e-2 for a file that is quantized or in
            16 bits, where a value on the edge between two numbers may be rounded to either; or twice as far as the
            model's own outputs go when its inputs change by a millionth, if that is more, up to 0.5.

    Raises:
        ExportError: The exporter or the checker refuses the model, or the file computes something else.
        InputError: An argument does not fit.
    """
    if isinstance(model, TransformationResult):
        model = model.model
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; expected a module or the result of transform.")
    if dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
        raise InputError(f"dtype is {dtype!r}; expected torch.float32, torch.float16 or torch.bfloat16.")
    example, named = normalize_args(args, kwargs)
    if example is None:
        raise InputError("args is None; export_onnx needs example inputs, for example args=(torch.randn(1, 3, 8, 8),).")
    target = Path(path)
    if target.is_dir() or not target.name:
        raise InputError(f"path {os.fspath(path)!r} is a folder; expected the name of a file, such as 'model.onnx'.")
    # Here, because who does not export need not wait for quantization to be imported.
    from embedl_deploy.export.prepare import (
        choose_opset,
        convert_inputs,
        holds_half,
        in_signature_order,
        is_quantized,
        prepare_model,
        reasons_in_float,
    )
    from embedl_deploy.export.qdq import translations

    given = model
    reasons = reasons_in_float(model)
    model = prepare_model(model, dtype, integer_weights=integer_weights)
    opset = choose_opset(model, opset)
    example, named = convert_inputs((example, in_signature_order(model, named)), dtype)
    automatic = tolerance == "auto"
    if tolerance == "auto":
        rounded = is_quantized(model) or holds_half(model, (example, named))
        tolerance = _TOLERANCE_ROUNDED if rounded else _TOLERANCE
    shapes = None
    if dynamic_batch:
        example, named = without_batch_of_one((example, named))
        shapes = dynamic_first_dimension(example, named)
    quantizers = translations(opset) if is_quantized(model) else {}
    operators = {**backend_translations(given, opset), **quantizers} or None
    program = _export(model, example, named, opset, operators, shapes, input_names, output_names)
    if dynamic_batch:
        check_open_batch(model, program.model.graph.inputs, shapes)
    note_in_float(program.model, reasons)
    size = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    with written_whole(target) as temporary:
        program.save(os.fspath(temporary), external_data=size > _EXTERNAL_DATA_BYTES)
        _check(temporary)
        measured = None
        if tolerance is not None:
            measured = difference_in_onnxruntime(model, temporary, example, named)
            if automatic and not measured.max_rel <= tolerance:
                tolerance = max(tolerance, min(_TOLERANCE_AT_MOST, 2 * sensitivity(model, example, named).max_rel))
            if not measured.max_rel <= tolerance:
                raise ExportError(
                    f"The exported file does not compute what the model computes: {measured}; accepted: {tolerance:g}. "
                    "Nothing was written. Look for operators that the exporter translates wrongly, or pass a larger "
                    "tolerance if the difference is expected."
                )
        written = sum(file.stat().st_size for file in temporary.parent.iterdir())
    return OnnxExport(
        path=target,
        opset=opset,
        input_names=tuple(str(value.name) for value in program.model.graph.inputs),
        output_names=tuple(str(value.name) for value in program.model.graph.outputs),
        size=written,
        difference=measured,
    )


@contextmanager
def _exporter_quiet() -> Iterator[None]:
    """Keep the exporter's progress notes and its warnings about its own internals out of the user's terminal."""
    with (
        quiet("torch.onnx", below=logging.ERROR),
        quiet("onnxscript", below=logging.ERROR),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


@collector_paused()
def _export(
    model: nn.Module,
    example: tuple[Any, ...],
    named: dict[str, Any],
    opset: int,
    operators: dict[Callable[..., Any], Callable[..., Any]] | None,
    shapes: Any,
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
) -> "torch.onnx.ONNXProgram":  # quoted: looking it up imports the exporter
    try:
        with _exporter_quiet(), torch.no_grad(), ExportableAttention():
            given: Any = model
            lowered = operators is not None and shapes is None
            if lowered:
                from embedl_deploy.export.lowering import captured, simplify  # here, as above

                given = captured(model, example, named)
            # A dictionary at the end is taken for keyword inputs where there are none.
            trailing: tuple[dict[str, Any], ...] = (
                ({},) if example and isinstance(example[-1], dict) and not named else ()
            )
            program = torch.onnx.export(
                given,
                (*example, *trailing),
                kwargs=named or None,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=shapes,
                input_names=input_names,
                output_names=output_names,
                verbose=False,
                optimize=not lowered,
                custom_translation_table=operators,
            )
            assert program is not None  # None is returned for the old exporter only
            if lowered:
                simplify(program)
    except ImportError as error:
        raise ExportError(f"ONNX export needs a package that is not installed: {error}.") from error
    except Exception as error:  # torch.export runs the model's own code and may raise anything
        cause: BaseException = error
        while cause.__cause__ is not None:  # torch wraps what went wrong in advice on how to debug torch
            cause = cause.__cause__
        refuse_outputs_without_tensor(model, example, named, error)
        lines = [line for line in str(cause).strip().splitlines() if line.strip()]
        hint = " Pass dynamic_batch=False if the model is written for a fixed batch." if shapes is not None else ""
        placed = describe_failed_module(error)
        where = f" (in {placed})" if placed else ""
        raise ExportError(
            f"{type(model).__name__} cannot be exported to ONNX with {describe_inputs(example, named)}: "
            f"{type(cause).__name__}: {' '.join(lines[:3])}{where}{hint}"
        ) from error
    if operators is not None:
        from embedl_deploy.export.qdq import store_int4  # here, as above

        store_int4(program.model)
    return program


def _check(path: Path) -> None:
    """Check a file, by name so that it may be over 2 GB."""
    import onnx

    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx.checker refuses the exported file: {error}. Nothing was written.") from error
