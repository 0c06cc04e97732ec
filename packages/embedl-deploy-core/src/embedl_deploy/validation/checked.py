"""The decorator that checks the arguments of a public function."""

import functools
import inspect
import re
import typing
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeVar, overload

from embedl_deploy.errors import ArgumentError, EmbedlDeployError
from embedl_deploy.validation.annotations import Namespace
from embedl_deploy.validation.expectations import expectation_of
from embedl_deploy.validation.plain_values import Expectation, Unfit
from embedl_deploy.validation.quoting import quoted

_Public = TypeVar("_Public", bound=Callable[..., Any])
_MARKUP = re.compile(r":\w+:`~?([^`]*)`|``([^`]*)``")


@overload
def checked(public: _Public) -> _Public: ...


@overload
def checked(*, error: type[EmbedlDeployError]) -> Callable[[_Public], _Public]: ...


def checked(public: Any = None, *, error: type[EmbedlDeployError] = ArgumentError) -> Any:
    """Hold every argument against the annotations before a function or a constructor runs.

    Annotations are read at the first call, so that importing costs nothing. Arguments that fit are handed on as the
    annotation says it: ``np.int64(3)`` as ``3``, the value of an enumeration as its member. What concerns several
    arguments at once, or the range of a number, is for the function itself to say.

    Not for what runs inside a model: tracers call it with stand-ins for tensors.

    Args:
        public: A function or method; a dataclass or a named tuple.
        error: What is raised for an argument that does not fit.
    """
    if public is None:
        return functools.partial(checked, error=error)
    if not isinstance(public, type):
        return _guarded(public, public.__qualname__.removesuffix(".__init__"), public, error)
    maker = "__new__" if issubclass(public, tuple) else "__init__"
    setattr(public, maker, _guarded(getattr(public, maker), public.__name__, public, error))
    return public


class _Parameter(NamedTuple):
    name: str
    expected: Expectation


class _Parameters:
    """The parameters of a function by place and by name; those that take anything are ``None``."""

    def __init__(self, function: Callable[..., Any]) -> None:
        names = Namespace(inspect.unwrap(function).__globals__)
        hints = typing.get_type_hints(function, names, names)
        self.by_place: list[_Parameter | None] = []
        self.by_name: dict[str, _Parameter | None] = {}
        self.further: _Parameter | None = None
        self.further_names: _Parameter | None = None
        for parameter in inspect.signature(function).parameters.values():
            expected = expectation_of(hints.get(parameter.name, Any))
            checked_one = None if expected is None else _Parameter(parameter.name, expected)
            if parameter.kind is parameter.VAR_POSITIONAL:
                self.further = checked_one
            elif parameter.kind is parameter.VAR_KEYWORD:
                self.further_names = checked_one
            else:
                self.by_name[parameter.name] = checked_one
                if parameter.kind is not parameter.KEYWORD_ONLY:
                    self.by_place.append(checked_one)


def _guarded(
    function: Callable[..., Any], name: str, documented: Any, error: type[EmbedlDeployError]
) -> Callable[..., Any]:
    @functools.cache
    def parameters() -> _Parameters:
        return _Parameters(function)

    def admitted(parameter: _Parameter | None, value: Any) -> Any:
        if parameter is None or type(value) in parameter.expected.at_once:
            return value
        try:
            return parameter.expected.admit(value)
        except Unfit as unfit:
            raise error(_message(name, parameter, unfit, documented)) from None

    @functools.wraps(function)
    def checking(*args: Any, **kwargs: Any) -> Any:
        known = parameters()
        args = tuple(map(admitted, chain(known.by_place, repeat(known.further)), args))
        for key, value in kwargs.items():
            kwargs[key] = admitted(known.by_name.get(key, known.further_names), value)
        return function(*args, **kwargs)

    return checking


def _message(name: str, parameter: _Parameter, unfit: Unfit, documented: Any) -> str:
    wrong = f"{parameter.name}{unfit.where} is {quoted(unfit.value)}"
    meaning = _documentation_of(parameter.name, documented)
    said = f' Its documentation says: "{meaning}".' if meaning else ""
    words = parameter.expected.words
    of_it = " Pass an instance of it." if isinstance(unfit.value, type) and "class" not in words else ""
    return f"{name}: {wrong}; expected {words}.{of_it}{said}"


def _documentation_of(name: str, documented: Any) -> str:
    """The first sentence that a docstring says of a parameter or an attribute; empty if there is none."""
    text = inspect.getdoc(documented) or ""
    found = re.search(rf"^ *\*{{0,2}}{name}: (.+?)(?:\.\s|;|\.?\Z|\n *\*{{0,2}}\w+: |\n\n)", text, re.M | re.S)
    return _MARKUP.sub(r"\1\2", " ".join(found[1].split())) if found else ""
