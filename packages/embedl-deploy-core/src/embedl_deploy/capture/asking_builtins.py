"""Answers ``type(x)``, ``callable(x)`` and ``torch.is_grad_enabled()`` during tracing.

A proxy cannot answer them: Python does not ask it. So while a model is traced, modules of Python whose code calls
``type`` or ``callable`` find one of their own that does, and ``torch.is_grad_enabled`` looks who asks.
"""

import builtins
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CellType, CodeType, FunctionType
from typing import Any

import torch
from torch import nn

from embedl_deploy.capture.proxies import TruthfulProxy


class _TypeOfProxies(type):
    """The class of a class that stands for ``type`` itself."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and issubclass(builtins.type(args[0]), TruthfulProxy):
            return args[0].class_of_value()
        return builtins.type(*args, **kwargs)

    def __getitem__(cls, item: Any) -> Any:
        return builtins.type[item]

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, builtins.type)

    def __subclasscheck__(cls, subclass: Any) -> bool:
        return issubclass(subclass, builtins.type)


class _Type(type, metaclass=_TypeOfProxies):
    """``type``, but for proxies the class of the value that they stand for."""


def _callable(value: Any) -> bool:
    """``callable``, but for proxies whether the value that they stand for can be called."""
    if issubclass(builtins.type(value), TruthfulProxy):
        return any("__call__" in vars(ancestor) for ancestor in value.class_of_value().__mro__)
    return callable(value)


#: What code finds in place of builtins.
_REPLACEMENTS: dict[str, Any] = {"type": _Type, "callable": _callable}


@contextmanager
def builtins_know_proxies(model: nn.Module) -> Iterator[None]:
    """Within the block, ``type`` and ``callable`` in the code of a model, and of what it calls, answer for the value.

    Args:
        model: The code is that of its modules' classes, of functions that the modules hold, and of the Python functions
            that those name, torch's excepted.
    """
    places = _namespaces_that_ask(model)
    for place, name in places:
        place[name] = _REPLACEMENTS[name]
    try:
        yield
    finally:
        for place, name in places:
            del place[name]


@contextmanager
def gradient_mode_is_asked_by(stop: Callable[[str], Any], *, is_asking: Callable[[], bool]) -> Iterator[None]:
    """Within the block, the code of a model that asks whether gradients are computed ends the trace.

    Args:
        stop: Ends it.
        is_asking: Whether the thread is the one that traces.
    """
    answer = torch.is_grad_enabled
    own = (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__)))

    def is_grad_enabled() -> bool:
        if is_asking() and not sys._getframe(1).f_code.co_filename.startswith(own):
            stop("whether gradients are computed is not known in symbolic tracing: it differs from call to call")
        return answer()

    torch.is_grad_enabled = is_grad_enabled
    try:
        yield
    finally:
        torch.is_grad_enabled = answer


def _namespaces_that_ask(model: nn.Module) -> list[tuple[dict[str, Any], str]]:
    """Global names of Python modules, and the builtin that their code calls."""
    functions = [f for cls in {builtins.type(m) for m in model.modules()} for f in _methods(cls)]
    functions += [f for m in model.modules() for f in map(_function, vars(m).values()) if f is not None]
    seen: set[int] = set()
    found: dict[tuple[int, str], tuple[dict[str, Any], str]] = {}
    while functions:
        function = functions.pop()
        if id(function) in seen or _is_torchs(function):
            continue
        seen.add(id(function))
        names = _names(function.__code__)
        namespace = function.__globals__
        for name in _REPLACEMENTS.keys() & names - namespace.keys():
            found[id(namespace), name] = (namespace, name)
        for value in (*(namespace.get(name) for name in names), *_enclosed(function)):
            if isinstance(value, builtins.type):
                functions += _methods(value)
            elif (named := _function(value)) is not None:
                functions.append(named)
    return list(found.values())


def _methods(cls: type) -> Iterator[FunctionType]:
    for ancestor in cls.__mro__:
        if not _is_torchs(ancestor):
            yield from (f for f in map(_function, vars(ancestor).values()) if f is not None)


def _function(value: Any) -> FunctionType | None:
    """A Python function, that of a method included."""
    function = getattr(value, "__func__", value)
    return function if isinstance(function, FunctionType) else None


def _enclosed(function: FunctionType) -> list[Any]:
    """What a function refers to in the functions around it."""
    return [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]


def _is_torchs(thing: Any) -> bool:
    module = str(getattr(thing, "__module__", ""))
    return module == torch.__name__ or module.startswith(f"{torch.__name__}.")


def _names(code: CodeType) -> set[str]:
    """The globals and attributes that a function's code names, inner functions included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))
