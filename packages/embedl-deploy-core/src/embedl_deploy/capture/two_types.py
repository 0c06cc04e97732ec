"""Comparing a trace of a model in another type with one in its own, and what to tell where they cannot both be had."""

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from embedl_deploy.capture.marked import NotToldApartError
from embedl_deploy.capture.model_type import CONVERSIONS

#: What torch raises at a size or at a tensor's number; by name, because importing torch._dynamo takes seconds.
_ABOUT_SHAPES = frozenset(
    {"GuardOnDataDependentSymNode", "ConstraintViolationError", "DataDependentOutputException", "UserError"}
)


def is_about_shapes(error: Exception) -> bool:
    """Whether a trace ended at a size, or at a number that a tensor holds, which have nothing to do with its type."""
    return type(error.__cause__).__name__ in _ABOUT_SHAPES


def notes_of_fixed_types(graph_module: fx.GraphModule, error: Exception | None = None) -> tuple[str, ...]:
    """What to tell of a graph that was traced in the model's own type; nothing if no literal may stand for it.

    Args:
        graph_module: The graph.
        error: What became of the trace in another type; ``None`` if it differs.
    """
    state = [*graph_module.parameters(), *graph_module.buffers()]
    types = {tensor.dtype for tensor in state if tensor.is_floating_point()}
    parts = [part for part in graph_module.modules() if isinstance(part, fx.GraphModule)]
    literals = (pytree.tree_leaves((node.args, node.kwargs)) for part in parts for node in part.graph.nodes)
    fixed = {value for values in literals for value in values if isinstance(value, torch.dtype) and value in types}
    raised = None if error is None else error.__cause__
    differs = raised is None and not isinstance(error, NotToldApartError)
    if not fixed and differs:
        return (
            "the model's code computes something else in another floating-point type; the graph computes in every type "
            "what the model computes in its own. To export it in float16, convert the model first: model.half()",
        )
    if not fixed:
        return ()
    name = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in fixed))
    why = "takes another path"
    if raised is not None:
        said = (str(raised).strip().splitlines() or ["no message"])[0]
        why = f"raises {type(raised).__name__}: {said}"
    elif isinstance(error, NotToldApartError):
        why = str(error)
    return (
        f"tensors that the model's code creates in {name} stay in {name} when the model is converted, because the code "
        f"cannot be traced in another type: there it {why}. To export it in float16, convert the model first: "
        "model.half()",
    )


def same_calls(marked: fx.GraphModule, plain: fx.GraphModule, own: torch.dtype) -> bool:
    """Whether a graph calls what the one that was traced in the model's own type does; conversions aside.

    Args:
        marked: The graph of a model that was marked.
        plain: The graph of the same model.
        own: The model's type.
    """
    real = torch.finfo(own)
    limits = {real.min, real.max, real.eps, real.tiny, real.resolution}
    return _calls(marked, limits) == _calls(plain, limits)


def _calls(graph_module: fx.GraphModule, limits: set[float]) -> list[Any]:
    """Targets and numbers of all calls but those that are about types."""
    calls = []
    for part in graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            if node.op.startswith("call_") and node.target not in (getattr, torch.finfo, *CONVERSIONS):
                values = pytree.tree_leaves((node.args, node.kwargs))
                numbers = [value for value in values if isinstance(value, (bool, int, float)) and value not in limits]
                calls.append((node.target, numbers))
    return calls
