"""Records which pattern placed a module, and names it when the module fails.

A module of a plugin raises whatever it likes, deep inside torch, or gives something at which the module after it
raises. The person who runs the model has never seen that module: they need its path, the pattern that put it there, and
who ships the pattern.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import PLUGIN_FAILURES, EmbedlDeployError, FusedModuleError
from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.expected import Expected, what_is_wrong
from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.out_of_memory import is_out_of_memory

#: Attribute of a placed module.
_PLACEMENT = "_embedl_deploy_placement"


@dataclass(frozen=True)
class Placement:
    """How a module came into a graph.

    Attributes:
        path: Where it was placed.
        pattern: Name of the pattern.
        origin: Distribution and version that ship the pattern; empty if it was not loaded from a plugin.
        expected: What the nodes gave that it has replaced; ``None`` if it gives only a part of that.
    """

    path: str
    pattern: str
    origin: str
    expected: Expected | None = None

    def __str__(self) -> str:
        return f"pattern {self.pattern!r}" + (f" from {self.origin}" if self.origin else "")


def note_placement(module: nn.Module, placement: Placement) -> None:
    """Keep with a module how it came into a graph; copies of it keep it, too."""
    module.__dict__[_PLACEMENT] = placement


def note_expected(module: nn.Module, expected: Expected) -> None:
    """Keep with a placed module what it must give, the first time that this is told; of others nothing is kept."""
    placement = placement_of(module)
    if placement is not None and placement.expected is None:
        note_placement(module, replace(placement, expected=expected))


def placement_of(module: nn.Module) -> Placement | None:
    """How a module came into a graph; ``None`` if no pattern has put it there."""
    placement = module.__dict__.get(_PLACEMENT)
    return placement if isinstance(placement, Placement) else None


def failed_module(
    error: BaseException, earlier: BaseException | None = None
) -> tuple[nn.Module, Placement, str] | None:
    """The module of a pattern in which an error was raised.

    Args:
        error: The error; what it was raised from is looked at, too.
        earlier: What was being handled before, which is not its cause.

    Returns:
        The module, how it came into its graph, and ``file:line`` of the last line that was run in its class's own
        file, empty if there was none. ``None`` if the error was raised elsewhere.
    """
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and current is not earlier and id(current) not in seen:
        seen.add(id(current))
        found = _in_traceback(current.__traceback__)
        if found is not None:
            return found
        current = current.__cause__ or current.__context__
    return None


def _in_traceback(traceback: TracebackType | None) -> tuple[nn.Module, Placement, str] | None:
    module: nn.Module | None = None
    placement: Placement | None = None
    line = ""
    while traceback is not None:
        frame = traceback.tb_frame
        called = frame.f_locals.get("self")
        if module is None and isinstance(called, nn.Module):
            placement = placement_of(called)
            module = called if placement is not None else None
        if module is not None and frame.f_globals.get("__name__") == type(module).__module__:
            line = f"{Path(frame.f_code.co_filename).name}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return (module, placement, line) if module is not None and placement is not None else None


def describe_failed_module(error: BaseException) -> str:
    """``"AcmeConv at 'conv1', placed by pattern 'ConvPattern' from acme 1.2 (modules.py:20)"``; empty if it is none."""
    found = failed_module(error)
    if found is None:
        return ""
    module, placement, line = found
    where = f"{type(module).__name__} at {placement.path!r}, placed by {placement}"
    return f"{where} ({line})" if line else where


@contextmanager
def fused_modules_named(model: nn.Module | None = None) -> Iterator[None]:
    """Within the block, what a placed module raises becomes a ``FusedModuleError`` that says which module it was.

    What is raised elsewhere, our own errors, and a lack of memory pass as they are.

    Args:
        model: Its placed modules are also looked at while they are called: one that gives something else than the nodes
            that it replaced, or changes what it was given, is named as well.
    """
    placed = [] if model is None else [part for part in model.modules() if placement_of(part) is not None]
    watch, earlier = _Watch(model), sys.exc_info()[1]
    handles = [part.register_forward_pre_hook(watch.before, with_kwargs=True) for part in placed]
    handles += [part.register_forward_hook(watch.after, with_kwargs=True) for part in placed]
    try:
        yield
    except EmbedlDeployError:
        raise
    except PLUGIN_FAILURES as error:  # a module of a plugin may raise anything
        found = None if is_out_of_memory(error) else failed_module(error, earlier)
        if found is None:
            raise
        raise _told(error, found[1]) from error
    finally:
        for handle in handles:
            handle.remove()


class _Watch:
    """Hooks around the calls of placed modules."""

    def __init__(self, model: nn.Module | None) -> None:
        self.model = model
        self._versions: dict[nn.Module, list[tuple[torch.Tensor, int]]] = {}

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note how often each input was written to; what is made in inference mode does not say."""
        self._versions[module] = [(t, t._version) for t in tensors_in(args, kwargs) if not t.is_inference()]

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Raise if the call did or gave what it must not.

        Raises:
            FusedModuleError: It did.
        """
        versions = self._versions.pop(module, [])
        placement = placement_of(module)
        if placement is None or placement.expected is None:
            return
        expected = placement.expected
        problem = what_is_wrong(expected, module, tensors_in(args, kwargs), output)
        if not problem and not expected.may_write and any(tensor._version != version for tensor, version in versions):
            problem = "writes to its input, which the replaced nodes do not change"
        if not problem and getattr(module, "makes_new_tensor", False):
            writer = self._overwritten_by(module, tensors_in(args, kwargs), output)
            problem = writer and (
                f"returns a view of its input, which {writer!r} overwrites later; such a module must declare "
                "makes_new_tensor = False"
            )
        if problem:
            raise _wrong(
                f"{type(module).__name__} at {placement.path!r}, placed by {placement}, {problem}. Report it", placement
            )

    def _overwritten_by(self, module: nn.Module, inputs: list[torch.Tensor], output: Any) -> str:
        """The node that overwrites what a module gives, which shares memory with an input; empty if none does both."""
        memory = {_memory(tensor) for tensor in inputs}
        if self.model is None or not any(_memory(tensor) in memory for tensor in tensors_in(output)):
            return ""
        for graph_module in (part for part in self.model.modules() if isinstance(part, fx.GraphModule)):
            calls = graph_module.graph.find_nodes(op="call_module")
            effects = Effects(graph_module.graph)
            for call in (node for node in calls if get_module(node) is module):
                writer = next(effects.written_after(call), None)
                if writer is not None:
                    return writer.name
        return ""


def _memory(tensor: torch.Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr() if tensor.device.type != "meta" else id(tensor)


def _told(error: BaseException, placement: Placement) -> FusedModuleError:
    reason = str(error).partition("\n\nWhile executing")[0]  # fx appends its own account of the place
    reason = " ".join(reason.split()) or "no message"
    return _wrong(
        f"{describe_failed_module(error)}, raised {type(error).__name__}: {reason.rstrip('.')}. If the original model "
        "takes these inputs, the module is wrong: report it",
        placement,
    )


def _wrong(what: str, placement: Placement) -> FusedModuleError:
    who = placement.origin.partition(" ")[0] or "whoever wrote it"
    return FusedModuleError(
        f"{what} to {who}, and switch the match off until it is fixed: "
        f"plan.matches[node][{placement.pattern!r}].apply = False.",
        module_path=placement.path,
        pattern=placement.pattern,
        distribution=placement.origin,
    )
