"""Capture by ``torch.export``, which runs the model's code on fake tensors."""

import io
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext, redirect_stderr
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.capture.assertions import drop_assertions
from embedl_deploy.capture.closed_dimensions import Closed, ClosingLines, closed_dimensions, refuse_other_sizes
from embedl_deploy.capture.fixed_sizes import FixedSizeError, about_loops, fixed_by_code
from embedl_deploy.capture.guard import guarded, note_inputs
from embedl_deploy.capture.leaf_calls import call_the_leaves, leaves_kept_whole
from embedl_deploy.capture.marked import MarkedModel, device_for
from embedl_deploy.capture.model_type import follow_the_model, keep_types
from embedl_deploy.capture.random_numbers import CallsNoted, RandomNumbers
from embedl_deploy.capture.recurrent_layers import steps_left_open
from embedl_deploy.capture.sums_into_parts import sum_into_parts
from embedl_deploy.capture.switched_off import inline_switched_off
from embedl_deploy.capture.unproven import export_open
from embedl_deploy.capture.user_code import place_in_words, raising_module, user_line
from embedl_deploy.errors import CaptureError, InputError
from embedl_deploy.exclusive import global_state
from embedl_deploy.graph.inputs import describe_inputs, tensors_in
from embedl_deploy.graph.open_dimensions import OpenDimensions
from embedl_deploy.logs import fake_tensors_quiet

#: torch's recurrent layers list their weights in an attribute, its old weight_norm computes them into one, and
#: torch.export warns of both.
_COMPUTED_WEIGHTS = (
    r"The tensor attributes?(,? self\.[\w.]*(_flat_weights\[\d+\]|\.weight\w*))+ (was|were) assigned during export"
)
#: What torch.export raises where the model's code asks for the values of tensors.
_ABOUT_VALUES = ("GuardOnDataDependentSymNode", "UserError")
_BY_VALUES = "Rewrite the line so that it does not depend on the values of tensors (torch.where instead of if)."


def capture_by_export(
    model: nn.Module,
    args: tuple[Any, ...] | None,
    kwargs: dict[str, Any],
    numbers: RandomNumbers,
    leaf_modules: Iterable[type[nn.Module]] = (),
    opened: OpenDimensions | None = None,
    *,
    marked: MarkedModel | None = None,
    is_leaf_function: Callable[[Callable[..., Any]], bool] | None = None,
) -> tuple[fx.GraphModule, list[Closed], str | None]:
    """The graph that ``torch.export`` makes of a model. One thread at a time.

    Args:
        model: The model; its own code may change it.
        args: Example inputs.
        kwargs: Example keyword inputs.
        numbers: Is told what the model does with random numbers.
        leaf_modules: Further classes to keep whole, beside those of ``torch.nn``.
        opened: Dimensions of the inputs to leave open.
        marked: The model in another type or on another device, which is traced in its place, so that literals that
            stand for its own follow it. Whether it takes the same way in its own is for the caller to find out.
        is_leaf_function: Of the functions that ``torch.fx`` keeps whole, which to keep whole, if any.

    Returns:
        The graph, the dimensions that the model's code closed, and what else to tell.

    Raises:
        CaptureError: It cannot be exported.
        InputError: There are no example inputs.
    """
    if args is None:
        raise InputError("Trace.EXPORT needs example inputs: pass args=(x,) to the call.")
    said, lines = io.StringIO(), ClosingLines()
    given = (args, kwargs)
    if opened:
        args, kwargs = opened.without_ones(model, args, kwargs)
    traced, (example, named) = model, (args, kwargs)
    if marked is not None:
        traced, (example, named) = marked.model, marked.converted((args, kwargs))
    try:
        # On its way to an error, which is told below, torch prints graphs and logs guesses.
        with (
            global_state,
            leaves_kept_whole(traced, leaf_modules, is_leaf_function, None if marked is None else marked.dtype),
            redirect_stderr(said),
            lines.listening(),
            fake_tensors_quiet(),
            steps_left_open(),
            warnings.catch_warnings(),
            numbers.watched(),
            CallsNoted(numbers),
            nullcontext() if marked is None else marked.traced(),
        ):
            warnings.filterwarnings("ignore", message=_COMPUTED_WEIGHTS)
            program = export_open(
                lambda shapes: torch.export.export(traced, example, named, dynamic_shapes=shapes),
                opened or OpenDimensions({}),
                (model, args, kwargs),
            )
            closed = closed_dimensions(program.graph, opened.of_tensors(model, args, kwargs), lines) if opened else []
            refuse_other_sizes(closed, given)
            module = program.module()
            inline_switched_off(module)
            call_the_leaves(module, model)
            sum_into_parts(module)
            graph_module = guarded(module, type(model).__name__)
            if marked is not None:
                marked.refuse_autocast(graph_module)
        sys.stderr.write(said.getvalue())  # warnings, and what the model itself has to say
    except CaptureError:
        raise
    except Exception as error:  # the model's own code runs here and may raise anything
        first = str(error).strip().splitlines()
        reasons = [line.rstrip() for line in first[1:] if line.lstrip().startswith("- ")] if opened else []
        needed = [f"  - a size is needed as a number at {line}" for line in lines.all()] if reasons else []
        what = f"{type(error).__name__}: {first[0] if first else 'no message'}"
        fixed = fixed_by_code(str(error)) if opened else ""
        if fixed:
            what = f"{fixed} ({what.partition(' For more information')[0]})"
            reasons = about_loops(lines.all())
        reasons = [*needed, *reasons] if fixed else [*reasons, *needed]
        reasons += [_BY_VALUES] if type(error).__name__ in _ABOUT_VALUES and not reasons else []
        path, (source, code) = raising_module(traced, error), user_line(error)
        place = f"{place_in_words(traced, path, source, code)}\n  " if source else ""
        raise (FixedSizeError if fixed else CaptureError)(
            f"{type(model).__name__} cannot be captured by torch.export with {describe_inputs(args, kwargs)}: "
            f"{place}{what}" + "".join(f"\n{reason}" for reason in reasons),
            module_path=path,
            source=source,
            reason=what,
        ) from error
    note = drop_assertions(graph_module)
    tensors = (*model.parameters(), *model.buffers(), *tensors_in(args, kwargs))
    device = next((device_for(tensor) for tensor in tensors), None)
    if marked is None or marked.own is None or marked.dtype is None:
        follow_the_model(graph_module, device)
    else:
        keep_types(graph_module, model)
        follow_the_model(graph_module, device, marked.dtype, marked.own, marked.named_limits())
    if marked is not None:
        marked.undo(graph_module, model)
        note_inputs(graph_module)
    numbers.settle(graph_module)
    return graph_module, closed, note
