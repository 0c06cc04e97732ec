"""The last changes to a file, which the backends that a model was transformed for make through their hook."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from torch import nn

from embedl_deploy.backend import Backend
from embedl_deploy.export.backend_operators import backends_of

if TYPE_CHECKING:
    import onnx_ir as ir

_leave_out: ContextVar[bool] = ContextVar("leave_out", default=False)


@contextmanager
def unfinished() -> Iterator[None]:
    """Export without the last changes: to files that others are made of, each of which is finished by itself."""
    before = _leave_out.set(True)
    try:
        yield
    finally:
        _leave_out.reset(before)


def finish_onnx(exported: "ir.Model", model: nn.Module) -> None:
    """Let the backends of ``model`` change its file.

    Raises:
        PluginError: A backend is broken, or its hook fails.
    """
    if not _leave_out.get():
        for backend in backends_of(model):
            finish_for(exported, backend)


def finish_for(exported: "ir.Model", backend: Backend) -> None:
    """Let one backend change a file, drop what nothing reads afterwards, and give what has a name twice its own.

    Raises:
        PluginError: Its hook fails.
    """
    if backend.finish_onnx(exported):
        from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass

        RemoveUnusedNodesPass()(exported)
        NameFixPass()(exported)
