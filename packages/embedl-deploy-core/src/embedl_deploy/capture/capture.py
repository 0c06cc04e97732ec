"""From a model to a graph module that is ours to change.

The model is deep-copied before anything runs, so whatever tracing does to Python state it does to the copy.
A graph that ``torch.export`` made holds ATen calls on parameters; patterns read those that a ``torch.nn`` module
equals as that module. Putting larger ATen subgraphs back together into modules belongs into this room too.
"""

import io
import logging
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.capture.guard import module_of
from embedl_deploy.capture.symbolic import trace_symbolically
from embedl_deploy.errors import CaptureError, InputError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.shapes import describe_inputs, propagate_shapes
from embedl_deploy.logs import quiet


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


def normalize_args(args: Any, kwargs: Any) -> tuple[tuple[Any, ...] | None, dict[str, Any]]:
    """Example inputs as a tuple and a dictionary; a single tensor stands for a tuple of one.

    Raises:
        InputError: They are something else.
    """
    if kwargs is not None and not isinstance(kwargs, dict):
        raise InputError(f"kwargs is {kwargs!r}; expected a dictionary from input names to values.")
    if isinstance(args, torch.Tensor):
        args = (args,)
    if args is not None and not isinstance(args, (tuple, list)):
        raise InputError(
            f"args is a {type(args).__name__}; expected a tuple of example inputs, args=(x,), or one tensor. "
            "Named inputs go into kwargs."
        )
    if args is None:
        return (None if kwargs is None else ()), kwargs or {}
    return tuple(args), kwargs or {}


def capture(
    model: Any,
    args: tuple[Any, ...] | None = None,
    kwargs: dict[str, Any] | None = None,
    *,
    trace: Trace | str = Trace.AUTO,
    leaf_modules: Iterable[type[nn.Module]] = (),
) -> Captured:
    """Capture ``model`` as a graph module of its own, and propagate shapes if inputs are given.

    Args:
        model: An ``nn.Module``, ``fx.GraphModule`` or ``ExportedProgram``. Not modified.
        args: Example inputs.
        kwargs: Example keyword inputs.
        trace: How to capture a module.
        leaf_modules: Further classes to keep whole.

    Raises:
        CaptureError: The model cannot be captured.
        InputError: It is no model, or the inputs do not fit it.
    """
    try:
        trace = Trace(trace)
    except ValueError as error:
        raise InputError(
            f"trace is {trace!r}; expected Trace.AUTO, Trace.SYMBOLIC or Trace.EXPORT, or its value."
        ) from error
    captured = _capture(_unwrap(model), args, kwargs or {}, trace, tuple(leaf_modules))
    if args is None:
        return captured
    note = propagate_shapes(captured.graph_module, args, kwargs or {})
    notes = captured.notes if note is None else (*captured.notes, note)
    return Captured(captured.graph_module, captured.method, notes)


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


def _capture(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...] | None,
    kwargs: dict[str, Any],
    trace: Trace,
    leaf_modules: tuple[type[nn.Module], ...],
) -> Captured:
    if isinstance(model, torch.export.ExportedProgram):
        return Captured(_copy(module_of(model)), "given")
    if isinstance(model, fx.GraphModule):
        return Captured(_copy(model), "given")
    notes: tuple[str, ...] = ()
    if model._forward_hooks or model._forward_pre_hooks:
        notes = ("hooks registered on the model itself are not captured; those on its sub-modules are",)
    if trace is Trace.EXPORT:
        return Captured(_export(_copy(model), args, kwargs), "export", notes)
    try:
        copied = _copy(model)
        versions = {name: buffer._version for name, buffer in copied.named_buffers()}
        graph_module, said = trace_symbolically(copied, leaf_modules, args, kwargs)
        return Captured(graph_module, "symbolic", notes + said + _undo_writes(model, copied, versions))
    except CaptureError as symbolic_error:
        if trace is Trace.SYMBOLIC or args is None:
            raise
        try:
            graph_module = _export(_copy(model), args, kwargs)
        except CaptureError as export_error:
            raise CaptureError(
                f"{symbolic_error}\n\ntorch.export was tried as well: {export_error}",
                module_path=symbolic_error.module_path,
                source=symbolic_error.source,
            ) from symbolic_error
        where = f" at {symbolic_error.source}" if symbolic_error.source else ""
        note = f"captured by torch.export, because symbolic tracing failed{where}"
        return Captured(graph_module, "export", (*notes, note))


def _undo_writes(model: nn.Module, copied: nn.Module, versions: dict[str, int]) -> tuple[str, ...]:
    """Take back what the model's forward wrote into the copy's buffers while it was traced, and say that it did.

    A write into a buffer that involves no traced value is carried out once, during tracing, and is not in the graph.
    """
    written = [name for name, buffer in copied.named_buffers() if buffer._version != versions.get(name)]
    with torch.no_grad():
        for name in written:
            copied.get_buffer(name).copy_(model.get_buffer(name))
    if not written:
        return ()
    return (f"the model's forward writes into {', '.join(map(repr, written))}; that is not part of the graph",)


def _copy(model: Any) -> Any:
    try:
        return deep_copy(model)
    except Exception as error:  # copying runs the model's own code
        raise CaptureError(
            f"{type(model).__name__} cannot be deep-copied, which is needed to leave it unchanged: "
            f"{type(error).__name__}: {error}. Remove what cannot be copied (open files, locks, tensors computed with "
            "gradient) from its attributes."
        ) from error


def _export(model: nn.Module, args: tuple[Any, ...] | None, kwargs: dict[str, Any]) -> fx.GraphModule:
    if args is None:
        raise InputError("Trace.EXPORT needs example inputs: pass args=(x,) to the call.")
    said = io.StringIO()
    try:
        # On its way to an error, which is told below, torch prints graphs and logs guesses.
        with redirect_stderr(said), quiet("torch.fx.experimental.symbolic_shapes", below=logging.ERROR):
            program = torch.export.export(model, args, kwargs)
        sys.stderr.write(said.getvalue())  # warnings, and what the model itself has to say
        graph_module = module_of(program)
        return fx.GraphModule(graph_module, graph_module.graph, type(model).__name__)
    except Exception as error:  # the model's own code runs here and may raise anything
        first = str(error).strip().splitlines()
        raise CaptureError(
            f"{type(model).__name__} cannot be captured by torch.export with {describe_inputs(args, kwargs)}: "
            f"{type(error).__name__}: {first[0] if first else 'no message'}"
        ) from error
