"""``type(x)``, asked while tracing.

A proxy cannot answer it: Python does not ask. So while a model is traced, modules of Python whose code calls ``type``
find one of their own that does.
"""

import builtins
from collections.abc import Iterator
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


@contextmanager
def type_knows_proxies(model: nn.Module) -> Iterator[None]:
    """Within the block, ``type(x)`` in the code of a model, and of what it calls, answers for the value of a proxy.

    Args:
        model: The code is that of its modules' classes, of functions that the modules hold, and of the Python functions
            that those name, torch's excepted.
    """
    places = _namespaces_that_call_type(model)
    for place in places:
        place["type"] = _Type
    try:
        yield
    finally:
        for place in places:
            del place["type"]


def _namespaces_that_call_type(model: nn.Module) -> list[dict[str, Any]]:
    functions = [f for cls in {builtins.type(m) for m in model.modules()} for f in _methods(cls)]
    functions += [f for m in model.modules() for f in map(_function, vars(m).values()) if f is not None]
    seen: set[int] = set()
    found: dict[int, dict[str, Any]] = {}
    while functions:
        function = functions.pop()
        if id(function) in seen or _is_torchs(function):
            continue
        seen.add(id(function))
        names = _names(function.__code__)
        namespace = function.__globals__
        if "type" in names and "type" not in namespace:
            found[id(namespace)] = namespace
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
