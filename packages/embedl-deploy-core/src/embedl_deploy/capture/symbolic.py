"""Symbolic tracing with errors that name the user's line."""

from collections.abc import Iterable
from typing import Any

from torch import fx, nn
from torch.fx.proxy import TraceError

from embedl_deploy.capture.asked_types import follow_what_was_asked_for
from embedl_deploy.capture.fixed_sizes import about_loops, stops_at_loop, without_proxies
from embedl_deploy.capture.marked import MarkedModel
from embedl_deploy.capture.mode import Mode
from embedl_deploy.capture.next_call import OtherCallsDifferError, next_call_differs, traces_differ
from embedl_deploy.capture.random_numbers import RandomNumbers
from embedl_deploy.capture.side_effects import SideEffects, depends_on_state
from embedl_deploy.capture.tracer import CaptureTracer
from embedl_deploy.capture.user_code import place_in_words, user_line
from embedl_deploy.capture.written_tensors import WrittenTensors
from embedl_deploy.errors import CaptureError
from embedl_deploy.graph.fixed_inputs import FIXED_INPUTS, FixedInputs
from embedl_deploy.graph.inputs import describe_inputs
from embedl_deploy.graph.working import WorkingGraphModule
from embedl_deploy.verify.state import State

_GIVE_INPUTS = """
  - give example inputs, transform(model, args=(...)), so that torch.export can capture the model instead;"""
_REWRITE = """
  - rewrite the line so that it does not depend on the values of tensors (torch.where instead of if);"""
_ADVICE = """
  - if it is in a function, keep that function as a single node: torch.fx.wrap("name") at module level;
  - trace the model yourself and pass the GraphModule: embedl_deploy.modules.symbolic_trace(model, leaf_modules=[...])
    keeps modules of these classes whole, and its concrete_args fixes inputs that decide the control flow."""


def trace_symbolically(
    original: nn.Module,
    model: nn.Module,
    leaf_modules: Iterable[type[nn.Module]],
    numbers: RandomNumbers,
    args: tuple[Any, ...] | None = None,
    kwargs: dict[str, Any] | None = None,
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Trace a copy of a model, sharing the modules of the copy.

    Args:
        original: The model.
        model: A deep copy of it.
        leaf_modules: Further classes to keep whole.
        numbers: Is told what the model does with random numbers.
        args: Example inputs. Inputs that have a default and are not given are fixed to it, all of them if there are
            no example inputs.
        kwargs: Example keyword inputs.

    Returns:
        The graph, and what the user should know about it.

    Raises:
        CaptureError: The model's code cannot be traced; names line and module.
        OtherCallsDifferError: Each call of the model is another graph.
    """
    before = State(model, random_numbers=False)
    tensors = WrittenTensors(before)
    leaves, mode = tuple(leaf_modules), Mode(model)
    tracer = CaptureTracer(leaves, args, kwargs or {}, tensors.note_read, numbers)
    try:
        with numbers.watched(), mode.watched():
            graph = tracer.trace(model)
    except Exception as error:  # the model's own code runs here and may raise anything
        raise _capture_error(
            model, tracer.failed_module or "", error, tracer.fixed if args is None else None
        ) from error
    effects = SideEffects(original, model, before, graph)

    def traced_again() -> fx.Graph:
        return CaptureTracer(leaves, args, kwargs or {}).trace(model)

    def differs() -> bool:
        return next_call_differs(model, effects, graph, traced_again)

    next_differs = bool(effects) and differs()
    if next_differs:
        effects.put_back_tensors()
        by_values = bool(effects.others) and differs()
        effects.take_back(next_call_differs=True)
        _refuse(original, effects, effects.others if by_values else [], has_examples=args is not None)
    for numbers_are_chosen in numbers.extremes():
        with numbers_are_chosen:
            if traces_differ(model, graph, traced_again):
                raise numbers.refuse_drawn(original)
    # Without example inputs, on which graph and model could be compared, this is all that tells of a clock or a file.
    if args is None and not numbers.drawn and traces_differ(model, graph, traced_again):
        raise OtherCallsDifferError(
            f"{type(original).__name__} cannot be captured: tracing its forward a second time gave a different graph. "
            "It depends on something that changes from call to call, such as the time, a random number, a global "
            "variable or an iterator. Make that an input of forward, or do not compute with it."
        )
    said = effects.take_back(next_call_differs=next_differs)
    of_mode = mode.notes(lambda: traces_differ(model, graph, traced_again))
    if mode.read:  # what the code does in the other mode
        effects.put_back()
    graph_module = WorkingGraphModule(model, graph, type(model).__name__)
    if (fault := tensors.fault(graph_module)) is not None:
        raise depends_on_state(original, *fault)
    asked = follow_what_was_asked_for(
        graph_module,
        lambda: MarkedModel.of(model, args or (), kwargs or {}, mark=True),
        lambda other: CaptureTracer(leaves, args, kwargs or {}).trace(other),
    )
    numbers.settle(graph_module)
    if tracer.fixed or tracer.needed:
        graph_module.meta[FIXED_INPUTS] = FixedInputs.of(tracer.positional, tracer.fixed, tracer.needed)
    return graph_module, (*_notes(tracer, has_examples=args is not None), *said, *of_mode, *asked)


def _refuse(original: nn.Module, effects: SideEffects, changed: list[str], *, has_examples: bool) -> None:
    """Refuse a model whose next call is another graph, unless it can be run to see whether that makes a difference.

    Args:
        original: The model.
        effects: What it did.
        changed: The values of Python that the difference comes from; empty if it comes from tensors.
        has_examples: Whether it can be run.
    """
    if changed:
        names = ", ".join(map(repr, changed))
        raise OtherCallsDifferError(
            f"{type(original).__name__} cannot be captured: its forward changes {names} and computes with it, so the "
            "next call computes something else, but a graph computes the same in every call. Make it an input of "
            "forward, or a buffer, which torch.export captures; or do not compute with it.",
            module_path=changed[0].rpartition(".")[0],
        )
    if not has_examples or effects.written:
        paths = [*effects.written, *effects.kept]
        what = f"keeps {', '.join(map(repr, paths))} for its next call and computes with it"
        raise depends_on_state(original, what, (*paths, "")[0])


def _notes(tracer: CaptureTracer, *, has_examples: bool) -> list[str]:
    notes = []
    if tracer.fixed and has_examples:
        why = "to their values in the example inputs, because those are not tensors"
        notes.append(f"inputs are fixed {why}: {_described(tracer.fixed)}")
    elif tracer.fixed:
        notes.append(
            f"without example inputs, inputs are fixed to their defaults: {_described(tracer.fixed)}; to pass other "
            "values, give example inputs that have them"
        )
    if tracer.taken_for_tensors:
        names = ", ".join(map(repr, tracer.taken_for_tensors))
        notes.append(f"the model asks for the type of {names}; without example inputs, a tensor is assumed")
    if tracer.texts:
        notes.append(f"text that the model formats from values, at {', '.join(tracer.texts)}, is not in the graph")
    if tracer.plain_dictionaries:
        names = ", ".join(tracer.plain_dictionaries)
        notes.append(
            f"the graph returns a plain dictionary instead of {names}, because symbolic tracing cannot create that "
            "class. Read the outputs by key"
        )
    if tracer.without_gradient:
        names = ", ".join(repr(path or "forward") for path in tracer.without_gradient)
        notes.append(
            f"{names} disables or enables gradients for a while; the graph does not, which matters in training"
        )
    return notes


def _described(values: dict[str, Any]) -> str:
    return describe_inputs((), values)[1:-1]


def _capture_error(model: nn.Module, path: str, error: Exception, fixed: dict[str, Any] | None) -> CaptureError:
    """What to say of a trace that failed; ``fixed`` is ``None`` where there are example inputs."""
    source, code = user_line(error)
    place = place_in_words(model, path, source, code)
    lines = [f"{type(model).__name__} cannot be traced symbolically: {place}"]
    first = str(error).strip().splitlines()
    kind = TraceError if isinstance(error, TraceError) else type(error)
    reason = without_proxies(f"{kind.__name__}: {first[0] if first else 'no message'}")
    lines.append(f"  {reason}")
    if fixed:
        lines.append(f"Without example inputs it was traced with the defaults of inputs: {_described(fixed)}")
    given = "" if fixed is None else _GIVE_INPUTS
    if stops_at_loop(error, code):
        lines += [f"Try one of these:{given}", *about_loops([code])]
    else:
        lines.append(f"Try one of these:{given}{'' if source is None else _REWRITE}{_ADVICE}")
    return CaptureError("\n".join(lines), module_path=path, source=source, reason=reason)
