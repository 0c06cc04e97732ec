"""Calls torch's exporter on a prepared model."""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from embedl_deploy.capture.recurrent_layers import steps_left_open
from embedl_deploy.capture.unproven import is_unproven
from embedl_deploy.errors import ExportError, FusedModuleError
from embedl_deploy.export.constants import Replaced
from embedl_deploy.export.exportable import ExportableForms
from embedl_deploy.export.failures import explain, may_be_of_sizes
from embedl_deploy.export.fitting import fit_program
from embedl_deploy.export.folded_norms import keep_bfloat16
from embedl_deploy.export.folding import fold_large
from embedl_deploy.export.judged import Run
from embedl_deploy.export.open_dimensions import advice_on_closed
from embedl_deploy.export.operands import FittingSlices
from embedl_deploy.export.outputs import refuse_outputs_without_tensor
from embedl_deploy.export.sources_kept import sources_kept
from embedl_deploy.graph.collector import collector_paused
from embedl_deploy.graph.inputs import describe_inputs
from embedl_deploy.graph.open_dimensions import OpenDimensions
from embedl_deploy.graph.placement import describe_failed_module
from embedl_deploy.logs import fake_tensors_quiet, quiet, stage
from embedl_deploy.verify import run_unchanged


@contextmanager
def _exporter_quiet() -> Iterator[None]:
    """Keep the exporter's progress notes and its warnings about its own internals out of the user's terminal."""
    with (
        fake_tensors_quiet(),
        quiet("torch.onnx", below=logging.ERROR),
        quiet("onnxscript", below=logging.ERROR),
        quiet("onnx_ir", below=logging.ERROR),
        # What these say about a failure is in the exception, too, without a dump of the graph.
        quiet("torch.export", below=logging.CRITICAL),
        quiet("torch.fx.experimental.symbolic_shapes", below=logging.CRITICAL),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


@collector_paused()
def translated(
    exported: Run,
    opset: int,
    operators: dict[Callable[..., Any], Callable[..., Any]],
    opened: OpenDimensions,
    dtype: torch.dtype = torch.float32,
    tensors: Iterable[Replaced] = (),
    *,
    lower: bool = False,
) -> tuple["torch.onnx.ONNXProgram", list[Replaced]]:  # quoted: looking it up imports the exporter
    """A model in ONNX, and the constants of its forward that its type does not hold.

    Args:
        exported: The model, and its inputs.
        opset: The operator set to write for.
        operators: Translations of backends' operators.
        opened: Dimensions of the inputs that are open.
        dtype: The model's floating-point type.
        tensors: What was replaced in parameters, buffers and inputs.
        lower: Spare the exporter's own passes where sizes are fixed: the model has been through fusions.

    Raises:
        ExportError: It cannot be exported.
    """
    exported = exported.on_cpu()
    model, example, named = exported.model, exported.args, exported.kwargs
    shapes = opened.for_export(model, example, named)
    slices = FittingSlices()
    replaced: list[Replaced] = []
    try:
        with _exporter_quiet(), sources_kept(), torch.no_grad(), ExportableForms(opset), steps_left_open():
            given: Any = model
            lowered = lower and shapes is None
            if lowered:
                from embedl_deploy.export.lowering import captured, simplify  # here: it imports half of torch.export

                stage("capturing the prepared model")
                with exported.floats, slices:
                    given = captured(model, example, named)
            elif dtype is not torch.float32:
                with exported.floats, slices:  # for the capture alone, not for what comes after it
                    given = torch.export.export(model, example, named or None, dynamic_shapes=shapes, strict=False)
            if isinstance(given, torch.export.ExportedProgram):
                replaced = [*slices.replaced, *fit_program(given, tensors)]
            # A dictionary at the end is taken for keyword inputs where there are none.
            trailing: tuple[dict[str, Any], ...] = (
                ({},) if example and isinstance(example[-1], dict) and not named else ()
            )
            stage("translating into ONNX")
            program = torch.onnx.export(
                given,
                (*example, *trailing),
                kwargs=named or None,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=shapes if given is model else None,
                verbose=False,
                optimize=not lowered,
                custom_translation_table=operators or None,
            )
            assert program is not None  # None is returned for the old exporter only
            if lowered:
                simplify(program.model)
            else:
                fold_large(program.model)
            if dtype is torch.bfloat16:
                keep_bfloat16(program.model)
    except ImportError as error:
        raise ExportError(f"ONNX export needs a package that is not installed: {error}.") from error
    except Exception as error:  # torch.export runs the model's own code and may raise anything
        if opened.is_mixed and is_unproven(error):  # the capture has seen to them
            return translated(exported, opset, operators, opened.without_names(), dtype, tensors, lower=lower)
        refuse_outputs_without_tensor(model, example, named, error)
        hint = f" {advice_on_closed(model)}" if opened and may_be_of_sizes(error) else ""
        why = _wrong_fused_module(exported, error) or explain(model, error)
        raise ExportError(
            f"{type(model).__name__} cannot be exported to ONNX with {describe_inputs(example, named)}: "
            f"{why.rstrip('.')}.{hint}"
        ) from error
    return program, replaced


def _wrong_fused_module(exported: Run, error: Exception) -> str:
    """The module of a pattern that gives what the module after it cannot take, in words; empty if there is none."""
    if describe_failed_module(error):
        return ""  # it raised itself
    try:
        with exported.floats:
            run_unchanged(exported.model, exported.args, exported.kwargs)
    except FusedModuleError as wrong:
        return str(wrong)
    except Exception:  # noqa: BLE001 - the user's code, of which the exporter's own error says more
        return ""
    return ""
