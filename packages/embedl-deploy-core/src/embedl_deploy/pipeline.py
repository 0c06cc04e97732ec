"""The public functions ``transform``, ``get_transformation_plan`` and ``apply_transformation_plan``."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from embedl_deploy.backend import Backend, get_backend
from embedl_deploy.capture import Trace, capture, module_of, normalize_args
from embedl_deploy.errors import PlanError
from embedl_deploy.graph.collector import collector_paused
from embedl_deploy.graph.process_hooks import registration_hooks_set_aside
from embedl_deploy.patterns import Pattern, PatternMatch
from embedl_deploy.patterns.asked import has_an_element_for
from embedl_deploy.plan import TransformationPlan, TransformationReport, TransformationResult
from embedl_deploy.plan.making import carry_out, make_plan, tabulate
from embedl_deploy.plan.serialization import apply_json_decisions, read_plan_json
from embedl_deploy.validation.checked import checked

#: ``model.meta`` entry: name of the backend that a model was transformed for.
BACKEND = "embedl_deploy.backend"


def _choose(patterns: Sequence[Pattern] | None, backend: str | Backend | None) -> tuple[list[Pattern], Backend | None]:
    if patterns is not None and backend is None:
        return list(patterns), None
    chosen = backend if isinstance(backend, Backend) else get_backend(backend)
    return chosen.patterns if patterns is None else list(patterns), chosen


@checked
@collector_paused()
@registration_hooks_set_aside()
def get_transformation_plan(
    model: Any,
    args: Any = None,
    *,
    kwargs: dict[str, Any] | None = None,
    patterns: Sequence[Pattern] | None = None,
    backend: str | Backend | None = None,
    trace: Trace | str = Trace.AUTO,
    strict: bool = False,
    verify_capture: bool = True,
    dynamic_shapes: Any = None,
) -> TransformationPlan:
    """Find out what would be rewritten, without doing it.

    Args:
        model: An ``nn.Module``, ``fx.GraphModule`` or ``ExportedProgram``. Not modified.
        args: Example inputs, for conversions that need shapes and for ``torch.export``. Parameters with a default that
            are not given here are fixed to it.
        kwargs: Example keyword inputs.
        patterns: The patterns, in order of priority; win over the backend's.
        backend: Name of an installed backend. With neither, the backend in use, or the only one installed.
        trace: How to capture the model.
        strict: Raise when a pattern fails, instead of reporting it.
        verify_capture: With example inputs, run the model and the captured graph on them once, and compare: two forward
            passes. Where they differ, another way of capture is tried, or the model is refused.
        dynamic_shapes: Dimensions of the inputs that may be of any size, in the notation of ``torch.export``:
            ``{"x": {0: torch.export.Dim("batch")}}``, or a tuple in the order of the inputs. They are open in the
            exported file as well. By default ``torch.export`` leaves dimension 0 of every tensor open, where the model
            allows it; the notes of the report say where not, and at which line of the model.

    Returns:
        A plan to read, change and apply.

    Raises:
        BackendError: The backend is not installed or broken, or none is chosen.
        CaptureError: The model cannot be captured.
        InputError: An argument does not fit.
        PatternError: A pattern is declared wrongly, conversions never settle, or one fails and ``strict`` is set.
    """
    chosen, resolved = _choose(patterns, backend)
    example, named = normalize_args(args, kwargs)
    leaves = resolved.leaf_modules if resolved is not None else ()
    captured = capture(
        model,
        example,
        named,
        trace=trace,
        leaf_modules=leaves,
        is_leaf_function=partial(has_an_element_for, chosen),
        verify=verify_capture,
        dynamic_shapes=dynamic_shapes,
    )
    return make_plan(
        captured.graph_module,
        chosen,
        backend=resolved,
        capture_method=captured.method,
        notes=captured.notes,
        original=module_of(model) if isinstance(model, torch.export.ExportedProgram) else model,
        strict=strict,
    )


@checked
def load_transformation_plan(
    text: str,
    model: Any,
    args: Any = None,
    *,
    kwargs: dict[str, Any] | None = None,
    patterns: Sequence[Pattern] | None = None,
    backend: str | Backend | None = None,
    trace: Trace | str = Trace.AUTO,
    verify_capture: bool = True,
    dynamic_shapes: Any = None,
) -> TransformationPlan:
    """Make a plan for a model, with the decisions of a saved plan.

    Args:
        text: What ``plan.to_json()`` gave.
        model: The same architecture, captured the same way; weights may differ.
        args: Example inputs; give them if they were given when the plan was made.
        kwargs: Example keyword inputs.
        patterns: The patterns of the plan, if it was made with a list of patterns.
        backend: Another backend than the one that the plan names.
        trace: How to capture the model.
        verify_capture: As for :func:`get_transformation_plan`.
        dynamic_shapes: As for :func:`get_transformation_plan`.

    Raises:
        PlanError: The text is not a plan, or one of another model or other patterns.
    """
    data = read_plan_json(text)
    if patterns is None and backend is None:
        backend = data.get("backend")
        if backend is None:
            raise PlanError("The plan was made with a list of patterns, not a backend. Pass the same list: patterns=.")
    plan = get_transformation_plan(
        model,
        args,
        kwargs=kwargs,
        patterns=patterns,
        backend=backend,
        trace=trace,
        verify_capture=verify_capture,
        dynamic_shapes=dynamic_shapes,
    )
    apply_json_decisions(plan, data)
    return plan


@checked
@collector_paused()
@registration_hooks_set_aside()
def apply_transformation_plan(plan: TransformationPlan, *, strict: bool = False) -> TransformationResult:
    """Apply a plan.

    Args:
        plan: A plan that was not applied before.
        strict: Raise when a rewrite fails, instead of undoing and reporting it.

    Raises:
        PlanError: The plan was applied before.
        PatternError: A rewrite failed, and ``strict`` is set.
    """
    model, matches, declined = carry_out(plan, strict=strict)
    if plan.backend is not None:
        model.meta[BACKEND] = plan.backend.name
    report = TransformationReport(plan, model, matches, declined)
    return TransformationResult(model, tabulate(matches), report)


@checked
@collector_paused()
def transform(
    model: Any,
    args: Any = None,
    *,
    kwargs: dict[str, Any] | None = None,
    patterns: Sequence[Pattern] | None = None,
    backend: str | Backend | None = None,
    trace: Trace | str = Trace.AUTO,
    strict: bool = False,
    verify_capture: bool = True,
    dynamic_shapes: Any = None,
) -> TransformationResult:
    """Capture a model, convert and fuse it. See :func:`get_transformation_plan` for arguments and errors.

    Returns:
        ``.model``, a graph module that computes the same; ``.report``, what was done; ``.verify(*inputs)``, the
        proof.
    """
    plan = get_transformation_plan(
        model,
        args,
        kwargs=kwargs,
        patterns=patterns,
        backend=backend,
        trace=trace,
        strict=strict,
        verify_capture=verify_capture,
        dynamic_shapes=dynamic_shapes,
    )
    return apply_transformation_plan(plan, strict=strict)


__all__ = [
    "PatternMatch",
    "TransformationResult",
    "apply_transformation_plan",
    "get_transformation_plan",
    "load_transformation_plan",
    "transform",
]
