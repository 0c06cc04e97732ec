"""Global module hooks (``register_module_forward_hook``), and how to disable them for a while.

They run at each call of a module: on what stands for values while a model is traced, on fake tensors, on modules that
the user does not know of. Others run when a module is given a parameter, a buffer or a part
(``register_module_parameter_registration_hook``), by torch.export and by a rewrite as well.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn.modules import module as torch_module

from embedl_deploy.exclusive import global_state

#: Where torch keeps those that run when a module is called.
FORWARD, FORWARD_PRE = "_global_forward_hooks", "_global_forward_pre_hooks"
_OF_CALLS = (FORWARD, FORWARD_PRE, "_global_backward_hooks", "_global_backward_pre_hooks")
_OF_REGISTRATION = tuple(f"_global_{kind}_registration_hooks" for kind in ("parameter", "buffer", "module"))


class _OfOtherThreads(OrderedDict[int, Any]):
    """Hooks, of which the thread that made this sees none."""

    def __init__(self, hooks: dict[int, Any]) -> None:
        super().__init__(hooks)
        self._thread = threading.get_ident()

    def _is_empty(self) -> bool:
        return threading.get_ident() == self._thread

    def __len__(self) -> int:
        return 0 if self._is_empty() else super().__len__()

    def items(self) -> Any:
        """Identifiers and hooks."""
        return {}.items() if self._is_empty() else super().items()

    def values(self) -> Any:
        """Hooks."""
        return {}.values() if self._is_empty() else super().values()


def process_hooks(name: str) -> dict[int, Any]:
    """The hooks that torch keeps under a name."""
    return dict(getattr(torch_module, name))


@contextmanager
def process_hooks_replaced(others: dict[str, OrderedDict[int, Any]]) -> Iterator[None]:
    """Within the block these are the hooks of the process. One thread at a time."""
    with global_state:
        before = {name: getattr(torch_module, name) for name in others}
        try:
            for name, hooks in others.items():
                setattr(torch_module, name, hooks)
            yield
        finally:
            for name, hooks in before.items():
                setattr(torch_module, name, hooks)


@contextmanager
def call_hooks_set_aside() -> Iterator[None]:
    """Within the block no hook of the process runs on this thread when a module is called."""
    with _set_aside(_OF_CALLS):
        yield


@contextmanager
def registration_hooks_set_aside() -> Iterator[None]:
    """Within the block no hook of the process runs on this thread when a module is given something to hold."""
    with _set_aside(_OF_REGISTRATION):
        yield


@contextmanager
def _set_aside(names: tuple[str, ...]) -> Iterator[None]:
    found = {name: process_hooks(name) for name in names}
    if not any(found.values()):
        yield
        return
    with process_hooks_replaced({name: _OfOtherThreads(hooks) for name, hooks in found.items()}):
        yield
