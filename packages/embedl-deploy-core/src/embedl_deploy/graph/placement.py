"""Which pattern put a module into a graph, and what is said when that module fails.

A module of a plugin raises whatever it likes, deep inside torch. The person who runs the model has never seen that
module: they need its path, the pattern that put it there, and who ships the pattern.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from embedl_deploy.errors import PLUGIN_FAILURES, EmbedlDeployError, FusedModuleError

#: Attribute of a placed module.
_PLACEMENT = "_embedl_deploy_placement"


@dataclass(frozen=True)
class Placement:
    """How a module came into a graph.

    Attributes:
        path: Where it was placed.
        pattern: Name of the pattern.
        origin: Distribution and version that ship the pattern; empty if it was not loaded from a plugin.
    """

    path: str
    pattern: str
    origin: str

    def __str__(self) -> str:
        return f"pattern {self.pattern!r}" + (f" from {self.origin}" if self.origin else "")


def note_placement(module: nn.Module, placement: Placement) -> None:
    """Keep with a module how it came into a graph; copies of it keep it, too."""
    module.__dict__[_PLACEMENT] = placement


def placement_of(module: nn.Module) -> Placement | None:
    """How a module came into a graph; ``None`` if no pattern has put it there."""
    placement = module.__dict__.get(_PLACEMENT)
    return placement if isinstance(placement, Placement) else None


def failed_module(error: BaseException) -> tuple[nn.Module, Placement, str] | None:
    """The module of a pattern in which an error was raised.

    Returns:
        The module, how it came into its graph, and ``file:line`` of the last line that was run in its class's own
        file, empty if there was none. ``None`` if the error was raised elsewhere.
    """
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
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
def fused_modules_named() -> Iterator[None]:
    """Within the block, what a placed module raises becomes a ``FusedModuleError`` that says which module it was.

    What is raised elsewhere, our own errors, and a lack of memory pass as they are.
    """
    try:
        yield
    except (EmbedlDeployError, torch.OutOfMemoryError, MemoryError):
        raise
    except PLUGIN_FAILURES as error:  # a module of a plugin may raise anything
        found = failed_module(error)
        if found is None:
            raise
        raise _told(error, found[1]) from error


def _told(error: BaseException, placement: Placement) -> FusedModuleError:
    reason = str(error).partition("\n\nWhile executing")[0]  # fx appends its own account of the place
    reason = " ".join(reason.split()) or "no message"
    who = placement.origin.partition(" ")[0] or "whoever wrote it"
    return FusedModuleError(
        f"{describe_failed_module(error)}, raised {type(error).__name__}: {reason.rstrip('.')}. If the original model "
        f"takes these inputs, the module is wrong: report it to {who}, and leave the pattern out for now, "
        f"plan.matches[node][{placement.pattern!r}].apply = False.",
        module_path=placement.path,
        pattern=placement.pattern,
        distribution=placement.origin,
    )
