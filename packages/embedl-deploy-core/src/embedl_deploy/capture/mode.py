"""Detects code that reads ``self.training``, which a symbolic graph fixes to the mode at capture.

``F.dropout(x, training=self.training)`` and ``if self.training:`` read an attribute that fx takes as it is. While a
model is traced, ``nn.Module`` has a property of that name, which notes who reads it.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from embedl_deploy.capture.user_code import is_user_code
from embedl_deploy.exclusive import global_state

_NAMED = 3


class Mode:
    """The modules of a model whose code reads in which mode they are.

    Args:
        model: The copy that is traced.

    Attributes:
        read: Their paths.
    """

    def __init__(self, model: nn.Module) -> None:
        self.read: dict[str, None] = {}
        self._model = model
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._thread = threading.get_ident()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a trace of the model. One thread at a time."""
        with global_state:
            nn.Module.training = property(self._get, _set)  # type: ignore[assignment]  # for a while
            try:
                yield
            finally:
                del nn.Module.training

    def notes(self, differs: Callable[[], bool]) -> list[str]:
        """What to tell, if what was read makes a difference.

        Args:
            differs: Whether another trace, of the same modules in the other mode, gives another graph.
        """
        modules = [self._model.get_submodule(path) for path in self.read]
        if not modules:
            return []
        for module in modules:
            module.training = not module.training
        try:
            if not differs():
                return []
        finally:
            for module in modules:
                module.training = not module.training
        paths = [repr(path or "forward") for path in self.read]
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        told = f"{', '.join(paths[:_NAMED])}{more}"
        modes = ("train()", "in training") if not modules[0].training else ("eval()", "in evaluation")
        return [
            f"{told}: computes something else {modes[1]}, which the graph does not: it stays as it was captured after "
            f"{modes[0]}. Use modules such as nn.Dropout, which follow the mode, or transform in the mode that you need"
        ]

    def _get(self, module: nn.Module) -> bool:
        try:
            value: bool = vars(module)["training"]
        except KeyError:
            raise AttributeError("training") from None
        path = self._paths.get(id(module))
        is_theirs = is_user_code(sys._getframe(1).f_code.co_filename)
        if path is not None and is_theirs and threading.get_ident() == self._thread:
            self.read[path] = None
        return value


def _set(module: nn.Module, value: bool) -> None:
    vars(module)["training"] = value
