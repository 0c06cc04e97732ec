"""The capture function: from a model to a graph module that may be changed.

The model is deep-copied before anything runs, so whatever tracing does to Python state it does to the copy.
Whatever captured it, a graph calls the model's modules of ``torch.nn``; functions are ATen calls where ``torch.export``
did.
"""

import linecache
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.capture.captured import NOT_SYMBOLIC, Captured
from embedl_deploy.capture.fixed_sizes import FixedSizeError, stops_at_loop
from embedl_deploy.capture.next_call import OtherCallsDifferError
from embedl_deploy.capture.opaque_functions import hides_weights
from embedl_deploy.capture.unknown_containers import UnknownContainerError
from embedl_deploy.capture.user_code import user_line
from embedl_deploy.capture.ways import Capturing, Leaves
from embedl_deploy.errors import CaptureError, InputError, in_a_line
from embedl_deploy.exclusive import global_state
from embedl_deploy.graph.inputs import describe_inputs
from embedl_deploy.graph.open_dimensions import OPEN_DIMENSIONS, OpenDimensions
from embedl_deploy.graph.out_of_memory import is_out_of_memory
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify import run_unchanged
from embedl_deploy.verify.unfit import refuse_unfit_inputs


class Trace(Enum):
    """How a model is captured as a graph.

    Attributes:
        AUTO: Symbolically; by ``torch.export`` if that fails and example inputs are given.
        SYMBOLIC: By ``torch.fx``, without running the model.
        EXPORT: By ``torch.export``; needs example inputs.
    """

    AUTO = "auto"
    SYMBOLIC = "symbolic"
    EXPORT = "export"


@checked
def capture(
    model: Any,
    args: tuple[Any, ...] | None = None,
    kwargs: dict[str, Any] | None = None,
    *,
    trace: Trace | str = Trace.AUTO,
    leaf_modules: Iterable[type[nn.Module]] = (),
    is_leaf_function: Callable[[Callable[..., Any]], bool] | None = None,
    verify: bool = True,
    dynamic_shapes: Any = None,
) -> Captured:
    """Capture ``model`` as a graph module of its own, and propagate shapes if inputs are given.

    Args:
        model: An ``nn.Module``, ``fx.GraphModule`` or ``ExportedProgram``. Not modified.
        args: Example inputs.
        kwargs: Example keyword inputs.
        trace: How to capture a module.
        leaf_modules: Further classes to keep whole.
        is_leaf_function: Of the functions that ``torch.fx`` keeps whole (``torch.fx.wrap``), which ``torch.export`` is
            to keep whole as well. Others that are given weights are for ``torch.export``. ``None`` if nobody asks.
        verify: Run model and graph on the example inputs, and compare.
        dynamic_shapes: Dimensions of the inputs that may be of any size, as ``torch.export`` takes them; inputs that
            are not named are fixed. By default dimension 0 of each tensor is, where the model leaves it open.

    Raises:
        CaptureError: The model cannot be captured, or the graph computes something else.
        InputError: It is not a model, or the inputs do not fit it.
    """
    try:
        trace = Trace(trace)
    except ValueError as error:
        raise InputError(
            f"trace is {trace!r}; expected Trace.AUTO, Trace.SYMBOLIC or Trace.EXPORT, or its value."
        ) from error
    model = _unwrap(model)
    opened = None
    if dynamic_shapes is not None:
        if args is None:
            raise InputError("dynamic_shapes needs example inputs: pass args=(x,) to the call.")
        if isinstance(model, torch.export.ExportedProgram):
            raise InputError("dynamic_shapes is for models that are captured; an ExportedProgram has its own.")
        opened = OpenDimensions.asked(model, args, kwargs or {}, dynamic_shapes)
    with global_state:  # what one thread puts back, such as the state of random numbers, another would see change
        leaves = Leaves(tuple(leaf_modules), is_leaf_function)
        captured = _captured(model, Capturing(model, args, kwargs or {}, leaves, verify, opened), trace)
    if opened is not None:
        captured.graph_module.meta[OPEN_DIMENSIONS] = opened.storable()
    return captured


def _captured(model: Any, capturing: Capturing, trace: Trace) -> Captured:
    args, kwargs = capturing.args, capturing.kwargs
    if isinstance(model, (torch.export.ExportedProgram, fx.GraphModule)):
        return capturing.given()
    capturing.refuse_hooks(model)
    if trace is Trace.EXPORT:
        try:
            return capturing.exported()
        except CaptureError as error:
            refuse_unfit_inputs(model, args or (), kwargs, error)
            raise
    try:
        captured = capturing.symbolic()
        return captured if trace is Trace.SYMBOLIC else _opened(captured, capturing)
    except CaptureError as symbolic_error:
        if trace is Trace.SYMBOLIC and args is not None and symbolic_error.reason:
            raise CaptureError(
                f"{symbolic_error}\n  - omit trace='symbolic', so that torch.export captures the model instead.",
                module_path=symbolic_error.module_path,
                source=symbolic_error.source,
                reason=symbolic_error.reason,
            ) from symbolic_error
        if trace is Trace.SYMBOLIC or args is None or isinstance(symbolic_error, OtherCallsDifferError):
            raise
        try:
            captured = capturing.exported()
        except UnknownContainerError:
            raise
        except CaptureError as export_error:
            _refuse_what_does_not_run(model, args, kwargs)
            raise _both(symbolic_error, export_error) from symbolic_error
        captured.graph_module.meta[NOT_SYMBOLIC] = True
        return replace(captured, notes=(*captured.notes, _fallback_note(symbolic_error)))


def _opened(captured: Captured, capturing: Capturing) -> Captured:
    """What was captured symbolically or, where that hides weights in functions, by ``torch.export`` if it can."""
    is_known, graph = capturing.leaves.is_function, captured.graph_module.graph
    hiding = hides_weights(graph, is_known) if is_known is not None and capturing.args is not None else None
    if hiding is None:
        return captured
    try:
        exported = capturing.exported()
    except (CaptureError, InputError):
        return captured
    reason = f"symbolic tracing would keep {hiding} whole, which computes with weights of the model"
    return replace(exported, notes=(*exported.notes, f"captured by torch.export, because {reason}"))


def _both(symbolic: CaptureError, export: CaptureError) -> CaptureError:
    """One error for both ways: first what stops ``torch.export``, which takes more models, then what stopped torch.fx.

    At the same line symbolic tracing has the clearer words for it. So it has where the trace did not end, but the graph
    is refused.
    """
    same = symbolic.source is not None and export.source in (symbolic.source, None)
    same = same and not isinstance(export, FixedSizeError)
    if same or not symbolic.reason:
        said = f"{symbolic}\n\ntorch.export also failed: {export.reason or export}"
        return CaptureError(said, module_path=symbolic.module_path, source=symbolic.source, reason=symbolic.reason)
    at = f" at {symbolic.source}" if symbolic.source else ""
    said = f"{export}\n\nSymbolic tracing, which was tried first, failed{at}: {symbolic.reason}"
    return CaptureError(said, module_path=export.module_path, source=export.source, reason=export.reason)


def _fallback_note(error: CaptureError) -> str:
    where = f" at {error.source}" if error.source else ""
    reason = "symbolic tracing failed" if error.reason else in_a_line(error)
    line = error.source.rpartition(":") if error.source else ("", "", "")
    unrolled = bool(line[0]) and stops_at_loop(error.__cause__, linecache.getline(line[0], int(line[2])))
    loop = "; the loop is unrolled, so the graph has as many steps as the example inputs need" if unrolled else ""
    return f"captured by torch.export, because {reason}{where}{f': {error.reason}' if error.reason else ''}{loop}"


def _refuse_what_does_not_run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Say of a model that cannot be captured that it does not run either, if that is the case.

    Raises:
        CaptureError: It does not.
    """
    try:
        run_unchanged(model, args, kwargs)
    except Exception as error:  # the model's own code runs here and may raise anything
        if is_out_of_memory(error):
            return
        source, code = user_line(error)
        where = "" if source is None else f", at {source}:\n    {code}"
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise CaptureError(
            f"{type(model).__name__} itself does not run on the example inputs {describe_inputs(args, kwargs)}: "
            f"{type(error).__name__}: {first}{where}\nFix the model, or pass inputs that it accepts; then capture it "
            "again.",
            source=source,
            reason=f"{type(error).__name__}: {first}",
        ) from error


def _unwrap(model: Any) -> nn.Module | torch.export.ExportedProgram:
    if type(model).__name__ == "OptimizedModule":  # by name: importing torch._dynamo to ask takes seconds
        model = model._orig_mod
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError(
            "The model is a TorchScript module, which cannot be captured. Pass the nn.Module that it was made from."
        )
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise CaptureError(f"The model is wrapped in {type(model).__name__}. Pass the model inside: model.module.")
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(f"model is the class {model.__name__}; pass an instance: {model.__name__}(...).")
    if not isinstance(model, (nn.Module, torch.export.ExportedProgram)):
        raise InputError(
            f"model is a {type(model).__name__}; expected an nn.Module, an fx.GraphModule or an ExportedProgram. For a "
            "checkpoint, create the module first and load it: model.load_state_dict(torch.load(path))."
        )
    for path, part in () if isinstance(model, torch.export.ExportedProgram) else model.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise CaptureError(
                f"{path!r} is a TorchScript module, which cannot be captured. Replace it with the nn.Module that it "
                "was made from.",
                module_path=path,
            )
    return model
