"""From a model to a graph module that is ours to change.

The model is deep-copied before anything runs, so whatever tracing does to Python state it does to the copy.
Whatever captured it, a graph calls the model's modules of ``torch.nn``; functions are ATen calls where ``torch.export``
did.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.capture.agreement import find_disagreement, is_comparable
from embedl_deploy.capture.always_training import note_always_training
from embedl_deploy.capture.closed_dimensions import CLOSED_DIMENSIONS
from embedl_deploy.capture.exporting import capture_by_export
from embedl_deploy.capture.marked import MarkedModel, is_about_shapes, notes_of_fixed_types, same_calls
from embedl_deploy.capture.next_call import OtherCallsDifferError
from embedl_deploy.capture.ones import refuse_wrong_ones
from embedl_deploy.capture.opaque_functions import hides_weights
from embedl_deploy.capture.process_hooks import refuse_hooks_that_change_values
from embedl_deploy.capture.programs import module_of
from embedl_deploy.capture.random_numbers import RandomNumbers
from embedl_deploy.capture.symbolic import trace_symbolically
from embedl_deploy.capture.unknown_containers import UnknownContainerError, refuse_unknown_containers
from embedl_deploy.capture.user_code import user_line
from embedl_deploy.errors import CaptureError, InputError
from embedl_deploy.exclusive import global_state
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.inputs import describe_inputs
from embedl_deploy.graph.open_dimensions import OPEN_DIMENSIONS, OpenDimensions
from embedl_deploy.graph.process_hooks import call_hooks_set_aside
from embedl_deploy.graph.shapes import propagate_shapes
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify import run_unchanged, state_kept
from embedl_deploy.verify.unfit import refuse_unfit_inputs


class Trace(Enum):
    """How a model is turned into a graph.

    Attributes:
        AUTO: Symbolically; by ``torch.export`` if that fails and example inputs are given.
        SYMBOLIC: By ``torch.fx``, without running the model.
        EXPORT: By ``torch.export``; needs example inputs.
    """

    AUTO = "auto"
    SYMBOLIC = "symbolic"
    EXPORT = "export"


@checked
@dataclass(frozen=True)
class Captured:
    """A captured model.

    Attributes:
        graph_module: The graph, with its own copy of all parameters.
        method: ``"symbolic"``, ``"export"`` or ``"given"`` (a graph module was passed).
        notes: What the user should know about how it went.
    """

    graph_module: fx.GraphModule
    method: str
    notes: tuple[str, ...] = ()


#: ``graph_module.meta`` entry of a graph that ``torch.export`` made because the model cannot be traced symbolically.
NOT_SYMBOLIC = "embedl_deploy.not_symbolic"


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
        InputError: It is no model, or the inputs do not fit it.
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
        leaves = _Leaves(tuple(leaf_modules), is_leaf_function)
        captured = _captured(model, _Capturing(model, args, kwargs or {}, leaves, verify, opened), trace)
    if opened is not None:
        captured.graph_module.meta[OPEN_DIMENSIONS] = opened.storable()
    return captured


def _captured(model: Any, capturing: "_Capturing", trace: Trace) -> Captured:
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
                f"{symbolic_error}\n  - leave out trace='symbolic', so that torch.export captures the model instead.",
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
            raise CaptureError(
                f"{symbolic_error}\n\ntorch.export was tried as well: {export_error}",
                module_path=symbolic_error.module_path,
                source=symbolic_error.source,
            ) from symbolic_error
        captured.graph_module.meta[NOT_SYMBOLIC] = True
        return replace(captured, notes=(*captured.notes, _fallback_note(symbolic_error)))


def _opened(captured: Captured, capturing: "_Capturing") -> Captured:
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


def _fallback_note(error: CaptureError) -> str:
    where = f" at {error.source}" if error.source else ""
    # What to do about it, which has been done, comes behind the reason.
    said = str(error).splitlines()[0].partition(". Give example inputs")[0]
    reason = "symbolic tracing failed" if error.source else said
    return f"captured by torch.export, because {reason}{where}{f': {error.reason}' if error.reason else ''}"


def _refuse_what_does_not_run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Say of a model that cannot be captured that it does not run either, if that is so.

    Raises:
        CaptureError: It does not.
    """
    try:
        run_unchanged(model, args, kwargs)
    except (torch.OutOfMemoryError, MemoryError):
        return
    except Exception as error:  # the model's own code runs here and may raise anything
        source, code = user_line(error)
        where = "" if source is None else f", at {source}:\n    {code}"
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise CaptureError(
            f"{type(model).__name__} itself does not run on the example inputs {describe_inputs(args, kwargs)}: "
            f"{type(error).__name__}: {first}{where}\nMend the model, or pass inputs as it is called; then it can be "
            "captured.",
            source=source,
            reason=f"{type(error).__name__}: {first}",
        ) from error


def _unwrap(model: Any) -> nn.Module | torch.export.ExportedProgram:
    if type(model).__name__ == "OptimizedModule":  # by name: importing torch._dynamo to ask takes seconds
        model = model._orig_mod
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError("The model is a TorchScript module, which cannot be captured. Pass the nn.Module it is of.")
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        raise CaptureError(f"The model is wrapped in {type(model).__name__}. Pass the model inside: model.module.")
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(f"model is the class {model.__name__}; pass an instance: {model.__name__}(...).")
    if not isinstance(model, (nn.Module, torch.export.ExportedProgram)):
        raise InputError(
            f"model is a {type(model).__name__}; expected an nn.Module, an fx.GraphModule or an ExportedProgram."
        )
    return model


@dataclass(frozen=True)
class _Leaves:
    """What is kept whole: classes of modules, and functions."""

    modules: tuple[type[nn.Module], ...]
    is_function: Callable[[Callable[..., Any]], bool] | None


@dataclass(frozen=True)
class _Capturing:
    """One model and its example inputs, to be captured one way or another."""

    model: Any
    args: tuple[Any, ...] | None
    kwargs: dict[str, Any]
    leaves: _Leaves
    verify: bool
    asked: OpenDimensions | None

    def given(self) -> Captured:
        """The graph that the user passes."""
        is_program = isinstance(self.model, torch.export.ExportedProgram)
        graph_module = _copy(module_of(self.model) if is_program else self.model)
        self.refuse_hooks(graph_module)
        return Captured(graph_module, "given", self._notes(graph_module))

    def symbolic(self) -> Captured:
        """By ``torch.fx``.

        Raises:
            CaptureError: See :func:`capture`.
        """
        _refuse_what_replaces_forward(self.model)
        # A copy is traced, but what hooks and functions of the copy enclose is the model's own.
        with state_kept(self.model), call_hooks_set_aside():
            copied = _copy(self.model)
            numbers = RandomNumbers(copied)
            graph_module, notes = trace_symbolically(
                self.model, copied, self.leaves.modules, numbers, self.args, self.kwargs
            )
            try:
                more = self._notes(graph_module)
            except InputError as error:
                if not self._model_runs():
                    raise
                raise CaptureError(
                    f"the symbolic graph of {type(self.model).__name__} does not take the example inputs, and the "
                    f"model does: {error}"
                ) from error
        return self._compared(Captured(graph_module, "symbolic", (*notes, *more)), numbers)

    def exported(self) -> Captured:
        """By ``torch.export``; with an open batch if the model allows it and nothing else was asked for.

        Raises:
            CaptureError: See :func:`capture`.
        """
        if self.asked is not None or self.args is None:
            return self._of_its_type(partial(self._exported, self.asked))
        return self._of_its_type(self._with_open_batch)

    def _of_its_type(self, trace: Callable[..., tuple[Captured, torch.dtype | None]]) -> Captured:
        """A graph that follows the model's type if the model does the same in another type, see ``marked.py``."""
        try:
            captured, own = trace(mark=True)
        except UnknownContainerError:
            raise
        except (CaptureError, InputError) as error:
            if is_about_shapes(error):
                raise
            captured, _ = trace(mark=False)  # raises what does not come from the other type
            return replace(captured, notes=(*captured.notes, *notes_of_fixed_types(captured.graph_module, error)))
        if own is None or (self.verify and is_comparable(self.model, self.args or (), self.kwargs)):
            return captured
        plain, _ = trace(mark=False)
        if same_calls(captured.graph_module, plain.graph_module, own):
            return captured
        return replace(plain, notes=(*plain.notes, *notes_of_fixed_types(plain.graph_module)))

    def _with_open_batch(self, *, mark: bool) -> tuple[Captured, torch.dtype | None]:
        """With an open batch if the model allows it."""
        first = OpenDimensions.first_of_all(self.model, self.args or (), self.kwargs)
        try:
            return self._exported(first, mark=mark)
        except UnknownContainerError:
            raise
        except (CaptureError, InputError) as error:
            captured, own = self._exported(None, mark=mark)  # raises what does not come from the open batch
            reason = str(error).partition(": the model was captured")[0].partition(". Given: ")[0].splitlines()[0]
            captured.graph_module.meta[CLOSED_DIMENSIONS] = (reason,)
            note = f"the batch is fixed to that of the example inputs: with an open one, {reason}"
            return replace(captured, notes=(*captured.notes, note)), own

    def _exported(self, opened: OpenDimensions | None, *, mark: bool) -> tuple[Captured, torch.dtype | None]:
        """The graph, and the model's own type if it was traced in another one."""
        with state_kept(self.model), call_hooks_set_aside():
            copied = _copy(self.model)
            numbers = RandomNumbers(copied)
            marked = MarkedModel.of(copied, self.args or (), self.kwargs) if mark else None
            given = (copied, self.args, self.kwargs, numbers, self.leaves.modules, opened)
            try:
                graph_module, closed, note = capture_by_export(
                    *given, marked=marked, is_leaf_function=self.leaves.is_function
                )
            except CaptureError as error:
                refuse_unknown_containers(self.model, self.args or (), self.kwargs, error)
                raise
            graph_module.meta[CLOSED_DIMENSIONS] = tuple(map(str, closed))
            notes = (*map(str, closed), *self._notes(graph_module), *(() if note is None else (note,)))
            captured = Captured(graph_module, "export", notes)
        captured = self._compared(captured, numbers, closely=marked is not None)
        if opened and self.verify:
            refuse_wrong_ones(self.model, captured.graph_module, self.args or (), self.kwargs, opened)
        return captured, None if marked is None else marked.own

    def refuse_hooks(self, model: nn.Module) -> None:
        """Refuse hooks of the process that change what the model's modules give; see :func:`capture`."""
        can_be_run = self.args is not None and self.verify
        refuse_hooks_that_change_values(model, (self.args or (), self.kwargs) if can_be_run else None)

    def _notes(self, graph_module: fx.GraphModule) -> tuple[str, ...]:
        shapes = None if self.args is None else propagate_shapes(graph_module, self.args, self.kwargs)
        return tuple(note for note in (shapes, note_always_training(graph_module.graph)) if note is not None)

    def _model_runs(self) -> bool:
        """Whether the model itself takes the example inputs."""
        try:
            run_unchanged(self.model, self.args or (), self.kwargs)
        except Exception:  # noqa: BLE001 - the model's own code runs here; what the graph raised is told
            return False
        return True

    def _compared(self, captured: Captured, numbers: RandomNumbers, *, closely: bool = False) -> Captured:
        noted = replace(captured, notes=(*captured.notes, *numbers.notes()))
        if self.args is None or not self.verify:
            if numbers.seeds_torch:
                raise numbers.refuse_seed(self.model)
            return noted
        given = (self.model, captured.graph_module, self.args, self.kwargs)
        found = find_disagreement(*given, closely=closely)
        for numbers_are_chosen in numbers.extremes():
            with numbers_are_chosen:
                found = found or find_disagreement(*given, closely=closely)
        if found is None:
            return noted
        if numbers.drawn and captured.method == "export":  # a symbolic trace has been repeated with other numbers
            raise numbers.refuse_drawn(self.model)
        if numbers.seeds_torch:
            raise numbers.refuse_seed(self.model)
        raise CaptureError(
            f"the {captured.method} graph of {type(self.model).__name__} does not compute what the model computes on "
            f"the example inputs: {found}\nThe model's code depends on something that capture cannot see, such as the "
            "class of a value, the time, a random number or what an earlier call has left. Rewrite that part, or pass "
            "a GraphModule of your own.",
            module_path=found.module,
        )


def _refuse_what_replaces_forward(model: nn.Module) -> None:
    """Refuse to trace the class's forward of a model that runs something else."""
    if model._forward_hooks or model._forward_pre_hooks:
        what = "has hooks that run when it is called"
    elif "forward" in vars(model):
        what = "has a forward of its own, which is not that of its class"
    elif type(model).__call__ is not nn.Module.__call__:
        what = "has a __call__ of its own"
    else:
        return
    raise CaptureError(
        f"{type(model).__name__} {what}, which torch.fx does not see on the model itself. Give example inputs, so that "
        "torch.export can capture it, or make it a part of a model without: nn.Sequential(model)."
    )


def _copy(model: Any) -> Any:
    try:
        return deep_copy(model)
    except Exception as error:  # copying runs the model's own code
        raise CaptureError(
            f"{type(model).__name__} cannot be deep-copied, which is needed to leave it unchanged: "
            f"{type(error).__name__}: {error}. Remove what cannot be copied (open files, locks, tensors computed with "
            "gradient) from its attributes."
        ) from error
