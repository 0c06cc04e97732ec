"""Capture by ``torch.export``, which runs the model's code on fake tensors."""

import io
import sys
import warnings
from collections.abc import Iterable
from contextlib import redirect_stderr
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.capture.closed_dimensions import Closed, ClosingLines, closed_dimensions, refuse_other_sizes
from embedl_deploy.capture.guard import guarded
from embedl_deploy.capture.leaf_calls import call_the_leaves, leaves_kept_whole
from embedl_deploy.capture.random_numbers import CallsNoted, RandomNumbers
from embedl_deploy.errors import CaptureError, InputError
from embedl_deploy.exclusive import global_state
from embedl_deploy.graph.inputs import describe_inputs
from embedl_deploy.graph.open_dimensions import OpenDimensions
from embedl_deploy.logs import fake_tensors_quiet

#: torch's recurrent layers list their weights in an attribute, its old weight_norm computes them into one, and
#: torch.export warns of both.
_COMPUTED_WEIGHTS = (
    r"The tensor attributes?(,? self\.[\w.]*(_flat_weights\[\d+\]|\.weight\w*))+ (was|were) assigned during export"
)


def capture_by_export(
    model: nn.Module,
    args: tuple[Any, ...] | None,
    kwargs: dict[str, Any],
    numbers: RandomNumbers,
    leaf_modules: Iterable[type[nn.Module]] = (),
    opened: OpenDimensions | None = None,
) -> tuple[fx.GraphModule, list[Closed]]:
    """The graph that ``torch.export`` makes of a model. One thread at a time.

    Args:
        model: The model; its own code may change it.
        args: Example inputs.
        kwargs: Example keyword inputs.
        numbers: Is told what the model does with random numbers.
        leaf_modules: Further classes to keep whole, beside those of ``torch.nn``.
        opened: Dimensions of the inputs to leave open.

    Returns:
        The graph, and the dimensions that the model's code closed.

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
    shapes = opened.for_export(model, args, kwargs) if opened else None
    try:
        # On its way to an error, which is told below, torch prints graphs and logs guesses.
        with (
            global_state,
            leaves_kept_whole(model, leaf_modules),
            redirect_stderr(said),
            lines.listening(),
            fake_tensors_quiet(),
            warnings.catch_warnings(),
            numbers.watched(),
            CallsNoted(numbers),
        ):
            warnings.filterwarnings("ignore", message=_COMPUTED_WEIGHTS)
            program = torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
            closed = closed_dimensions(program.graph, opened.of_tensors(model, args, kwargs), lines) if opened else []
            refuse_other_sizes(closed, given)
            module = program.module()
            call_the_leaves(module, model)
            graph_module = guarded(module, type(model).__name__)
        sys.stderr.write(said.getvalue())  # warnings, and what the model itself has to say
    except CaptureError:
        raise
    except Exception as error:  # the model's own code runs here and may raise anything
        first = str(error).strip().splitlines()
        reasons = [line.rstrip() for line in first[1:] if line.lstrip().startswith("- ")] if shapes else []
        reasons += [f"  - a size is needed as a number at {line}" for line in lines.all()] if reasons else []
        raise CaptureError(
            f"{type(model).__name__} cannot be captured by torch.export with {describe_inputs(args, kwargs)}: "
            f"{type(error).__name__}: {first[0] if first else 'no message'}"
            + "".join(f"\n{reason}" for reason in reasons)
        ) from error
    numbers.settle(graph_module)
    return graph_module, closed
