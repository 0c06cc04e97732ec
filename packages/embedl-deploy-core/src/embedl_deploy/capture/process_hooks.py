"""Refuses global module hooks that change values, because rewrites replace the modules they run on.

``torch.nn.modules.module.register_module_forward_hook`` is for profilers and loggers, and most hooks only look. They
are left out while a model is captured, and run when the result is, on its modules. A hook that changes values would
have to run on the user's modules, which a rewrite replaces.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import CaptureError
from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.graph.process_hooks import FORWARD, FORWARD_PRE, process_hooks, process_hooks_replaced
from embedl_deploy.verify import run_unchanged

_REGISTERED = {FORWARD: "register_module_forward_hook", FORWARD_PRE: "register_module_forward_pre_hook"}


def refuse_hooks_that_change_values(model: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]] | None) -> None:
    """Refuse to capture while a hook of the process changes what modules are given, or give.

    Args:
        model: The model; run on the inputs to find out, if there are hooks.
        inputs: Example inputs; ``None`` if there are none, or the model must not be run.

    Raises:
        CaptureError: A hook changes values, or may, since without a run nothing says that it does not.
    """
    found = {name: process_hooks(name) for name in _REGISTERED}
    named = [f"{_name(hook)!r} ({_REGISTERED[name]})" for name, hooks in found.items() for hook in hooks.values()]
    if not named:
        return
    if inputs is None:
        raise CaptureError(
            f"{type(model).__name__} cannot be captured while global module hooks are registered: {', '.join(named)}. "
            "They may change inputs or outputs of modules, which a graph would not do. Remove them for the capture, "
            "handle.remove(), or give example inputs, which show whether they change anything."
        )
    changing: dict[str, str] = {}
    watched = {
        name: OrderedDict((key, _watched(name, hook, changing)) for key, hook in hooks.items())
        for name, hooks in found.items()
    }
    try:
        with process_hooks_replaced(watched):
            run_unchanged(model, *inputs)
    except Exception:  # noqa: BLE001 - the model's own code runs here; what it raises is told where graph and model run
        pass
    for hook, module in changing.items():
        raise CaptureError(
            f"{type(model).__name__} cannot be captured: the global module hook {hook} changes the inputs or the "
            f"output of {module}, which a graph would not do. Remove it, handle.remove(), or move what it does into "
            "the model."
        )


def _watched(kind: str, hook: Callable[..., Any], changing: dict[str, str]) -> Callable[..., Any]:
    """A hook that notes the class of a module of which it changes inputs or output."""
    thread = threading.get_ident()

    def watched(module: nn.Module, *values: Any) -> Any:
        tensors = [tensor for tensor in tensors_in(values) if not tensor.is_inference()]
        versions = [tensor._version for tensor in tensors]
        returned = hook(module, *values)
        is_other = returned is not None and not _are_same(returned, values[-1 if kind == FORWARD else 0])
        if threading.get_ident() == thread and (is_other or versions != [tensor._version for tensor in tensors]):
            changing.setdefault(f"{_name(hook)!r} ({_REGISTERED[kind]})", type(module).__name__)
        return returned

    return watched


def _are_same(a: Any, b: Any) -> bool:
    return [*map(id, pytree.tree_leaves(a))] == [*map(id, pytree.tree_leaves(b))]


def _name(hook: Any) -> str:
    return str(getattr(hook, "__qualname__", type(hook).__name__))
