"""The ways to capture a model: torch.fx, torch.export with an open or a fixed batch, or a given graph."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.capture.agreement import find_disagreement, is_comparable
from embedl_deploy.capture.always_training import note_always_training
from embedl_deploy.capture.captured import Captured
from embedl_deploy.capture.clock import Clock
from embedl_deploy.capture.closed_dimensions import CLOSED_DIMENSIONS
from embedl_deploy.capture.exporting import capture_by_export
from embedl_deploy.capture.marked import MarkedModel
from embedl_deploy.capture.ones import refuse_wrong_ones
from embedl_deploy.capture.process_hooks import refuse_hooks_that_change_values
from embedl_deploy.capture.programs import module_of
from embedl_deploy.capture.random_numbers import RandomNumbers
from embedl_deploy.capture.symbolic import trace_symbolically
from embedl_deploy.capture.two_types import is_about_shapes, notes_of_fixed_types, same_calls
from embedl_deploy.capture.unknown_containers import UnknownContainerError, refuse_unknown_containers
from embedl_deploy.errors import CaptureError, InputError, in_a_line
from embedl_deploy.graph.dead_code import remove_what_nobody_reads
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.in_place import read_results_of_writes
from embedl_deploy.graph.open_dimensions import OpenDimensions
from embedl_deploy.graph.out_of_memory import is_out_of_memory
from embedl_deploy.graph.process_hooks import call_hooks_set_aside
from embedl_deploy.graph.shapes import propagate_shapes
from embedl_deploy.graph.training_mode import in_training
from embedl_deploy.logs import stage
from embedl_deploy.verify import run_unchanged, state_kept


@dataclass(frozen=True)
class Leaves:
    """What is kept whole: classes of modules, and functions."""

    modules: tuple[type[nn.Module], ...]
    is_function: Callable[[Callable[..., Any]], bool] | None


@dataclass(frozen=True)
class Capturing:
    """One model and its example inputs, to be captured one way or another."""

    model: Any
    args: tuple[Any, ...] | None
    kwargs: dict[str, Any]
    leaves: Leaves
    verify: bool
    asked: OpenDimensions | None

    def given(self) -> Captured:
        """The graph that the user passes."""
        is_program = isinstance(self.model, torch.export.ExportedProgram)
        graph_module = _copy(module_of(self.model) if is_program else self.model)
        self.refuse_hooks(graph_module)
        notes = self._notes(graph_module)
        read_results_of_writes(graph_module)
        remove_what_nobody_reads(graph_module)
        return Captured(graph_module, "given", notes)

    def symbolic(self) -> Captured:
        """By ``torch.fx``.

        Raises:
            CaptureError: See :func:`capture`.
        """
        stage("tracing by torch.fx")
        _refuse_what_replaces_forward(self.model)
        # A copy is traced, but what hooks and functions of the copy enclose is the model's own.
        with state_kept(self.model), call_hooks_set_aside():
            copied = _copy(self.model)
            numbers = RandomNumbers(copied)
            clock = Clock()
            with clock.watched():
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
            read_results_of_writes(graph_module)
            remove_what_nobody_reads(graph_module)
        return self._compared(Captured(graph_module, "symbolic", (*notes, *more)), numbers, clock)

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
            reason = in_a_line(error)
            captured.graph_module.meta[CLOSED_DIMENSIONS] = (reason,)
            note = f"the batch is fixed to that of the example inputs: with an open one, {reason}"
            return replace(captured, notes=(*captured.notes, note)), own

    def _exported(self, opened: OpenDimensions | None, *, mark: bool) -> tuple[Captured, torch.dtype | None]:
        """The graph, and the model's own type if it was traced in another one."""
        stage("capturing by torch.export")
        with state_kept(self.model), call_hooks_set_aside():
            copied = _copy(self.model)
            numbers = RandomNumbers(copied)
            marked = MarkedModel.of(copied, self.args or (), self.kwargs, mark=mark)
            given = (copied, self.args, self.kwargs, numbers, self.leaves.modules, opened)
            clock = Clock()
            try:
                with clock.watched():
                    graph_module, closed, note = capture_by_export(
                        *given, marked=marked, is_leaf_function=self.leaves.is_function
                    )
            except CaptureError as error:
                refuse_unknown_containers(self.model, self.args or (), self.kwargs, error)
                raise
            graph_module.meta[CLOSED_DIMENSIONS] = tuple(map(str, closed))
            notes = (*map(str, closed), *self._notes(graph_module), *(() if note is None else (note,)))
            read_results_of_writes(graph_module)
            remove_what_nobody_reads(graph_module)
            captured = Captured(graph_module, "export", notes)
        own = None if marked is None or marked.dtype is None else marked.own
        captured = self._compared(captured, numbers, clock, closely=own is not None)
        if opened and self.verify:
            refuse_wrong_ones(self.model, captured.graph_module, self.args or (), self.kwargs, opened)
        return captured, own

    def refuse_hooks(self, model: nn.Module) -> None:
        """Refuse hooks of the process that change what the model's modules give; see :func:`capture`."""
        can_be_run = self.args is not None and self.verify
        refuse_hooks_that_change_values(model, (self.args or (), self.kwargs) if can_be_run else None)

    def _notes(self, graph_module: fx.GraphModule) -> tuple[str, ...]:
        shapes = None if self.args is None else propagate_shapes(graph_module, self.args, self.kwargs)
        training = not isinstance(self.model, nn.Module) or any(part.training for part in self.model.modules())
        always = note_always_training(graph_module.graph, training=training)
        return tuple(note for note in (in_training(graph_module), shapes, always) if note)

    def _model_runs(self) -> bool:
        """Whether the model itself takes the example inputs."""
        try:
            run_unchanged(self.model, self.args or (), self.kwargs)
        except Exception:  # noqa: BLE001 - the model's own code runs here; what the graph raised is told
            return False
        return True

    def _compared(self, captured: Captured, numbers: RandomNumbers, clock: Clock, *, closely: bool = False) -> Captured:
        noted = replace(captured, notes=(*captured.notes, *numbers.notes(), *clock.notes()))
        if self.args is None or not self.verify:
            if numbers.seeds_torch:
                raise numbers.refuse_seed(self.model)
            return noted
        given = (self.model, captured.graph_module, self.args, self.kwargs)
        found = find_disagreement(*given, closely=closely)
        for numbers_are_chosen in numbers.extremes():
            with numbers_are_chosen:
                found = found or find_disagreement(*given, closely=closely)
        if found is None and clock.asked:
            with clock.later():
                later = find_disagreement(*given, closely=closely)
            if later is not None:
                raise clock.refuse(self.model)
        if found is None:
            return noted
        if numbers.drawn and captured.method == "export":  # a symbolic trace has been repeated with other numbers
            raise numbers.refuse_drawn(self.model)
        if numbers.seeds_torch:
            raise numbers.refuse_seed(self.model)
        raise CaptureError(
            f"the {captured.method} graph of {type(self.model).__name__} does not compute what the model computes on "
            f"the example inputs: {found}\nThe model's code depends on something that capture cannot see, such as the "
            "class of a value, the time, a random number or state from an earlier call. Rewrite that part, or pass "
            "your own GraphModule.",
            module_path=found.module,
        )


def _refuse_what_replaces_forward(model: nn.Module) -> None:
    """Refuse to trace the class's forward of a model that runs something else."""
    if model._forward_hooks or model._forward_pre_hooks:
        what = "has hooks that run when it is called"
    elif "forward" in vars(model):
        what = "has its own forward instead of that of its class"
    elif type(model).__call__ is not nn.Module.__call__:
        what = "has a __call__ of its own"
    else:
        return
    fault = f"{type(model).__name__} {what}, which torch.fx ignores on the outermost module"
    raise CaptureError(
        f"{fault}. Give example inputs, so that torch.export can capture it, or wrap it in another module: "
        "nn.Sequential(model).",
        fault=fault,
    )


def _copy(model: Any) -> Any:
    try:
        return deep_copy(model)
    except Exception as error:  # copying runs the model's own code
        if is_out_of_memory(error):
            raise
        raise CaptureError(
            f"{type(model).__name__} cannot be deep-copied, which is needed to leave it unchanged: "
            f"{type(error).__name__}: {error}. Remove what cannot be copied from its attributes, such as open files, "
            "locks and tensors with a gradient history."
        ) from error
