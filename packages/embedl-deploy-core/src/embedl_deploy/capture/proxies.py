"""Proxies that answer questions about a value correctly, or end the trace.

In a symbolic trace a proxy stands for a value, and Python code that asks about the value gets the proxy's answer. A
plain proxy has one for many questions, and it is wrong: it is not a tensor, has every attribute and hashes by identity.
Here a question is answered from what is known of the value, or it stops the trace:

=====================================================  =========================================================
the model asks                                         answer
=====================================================  =========================================================
``isinstance(x, torch.Tensor)``, ``x.__class__``       the class of the value, if that is known
``hasattr(x, "tensors")``, ``getattr(x, "n", None)``   whether the value has it, if that is known
``str(x)``, ``f"{x.shape}"``, ``repr(x.dtype)``        the text of sizes and types, if known, which a note says, or
                                                       where it is for people to read; else it stops the trace
``int(x)``, ``float(x)``, ``len(x)``, ``bool(x)``      stops the trace: the graph would hold for one value only
iteration, ``x in values``, ``{...}.get(x)``           stops the trace
``match x.shape: case (n, c):``                        stops the trace
``x.dtype is torch.float32``                           stops the trace
``x.data = y``, ``x.data_ptr()``, ``x.numpy()``        stops the trace: no graph says what becomes of the memory
``torch.tensor(x)``, other functions of torch in C     no tensor: they would take the proxy's memory for one
``batch.mask is None``, where it is                    stops the trace when it is looked up
=====================================================  =========================================================

There is no ``__index__``: functions of torch ask for it to find out what they were given, so an index raises Python's
own ``TypeError``.

The machinery of ``torch.fx`` itself, and this package, ask proxies what they are as proxies, and are told that.
"""

import dis
import os
import re
import sys
from abc import ABCMeta
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Protocol

import torch
from torch.fx.proxy import Attribute

from embedl_deploy.capture.asking import PLAIN_ACCESS, instruction, python_asks
from embedl_deploy.capture.source import statement_at
from embedl_deploy.capture.values import ExampleValues, UnknownValueError, class_of
from embedl_deploy.modules.tracer import InPlaceProxy

_TORCH = os.path.dirname(torch.__file__)
#: Who asks about proxies as such.
_MACHINERY = (
    os.path.join(_TORCH, "fx", ""),
    os.path.join(_TORCH, "utils", "_pytree.py"),
    os.path.join(_TORCH, "nn", "modules", "module.py"),  # where an attribute is kept that is assigned
    os.path.dirname(os.path.dirname(__file__)),
)
#: Who passes on another's question: ``isinstance`` with nn.Parameter or an abstract base class.
_GO_BETWEENS = (os.path.join(_TORCH, "nn", "parameter.py"), "<frozen abc>")
#: What models compare by identity, because torch has one object for each of them.
_SINGLETONS = frozenset({"dtype", "device", "layout", "grad", "grad_fn"})
#: Statements that make text for somebody to read, not for the program to go by.
_FOR_PEOPLE = re.compile(r"\b(_?assert|raise|warn\w*|log\w*|print)\b")
#: What gives a tensor's memory away, which may be written by others then.
_MEMORY = frozenset({"data_ptr", "numpy", "storage", "untyped_storage", "_typed_storage"})


def _asking(depth: int) -> FrameType:
    """The frame of whoever asks, ``depth`` frames above the caller."""
    frame = sys._getframe(depth + 1)
    while frame.f_code.co_filename in _GO_BETWEENS and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _is_machinery(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_MACHINERY)


def _is_compared_by_identity(frame: FrameType) -> bool:
    """Whether the attribute that the frame is loading goes into ``is``, or into ``is not``, next."""
    loaded = 0
    for step in dis.get_instructions(frame.f_code):
        if step.offset <= frame.f_lasti or step.opname in PLAIN_ACCESS:
            continue
        if not step.opname.startswith("LOAD_"):
            return step.opname == "IS_OP" and loaded <= 1
        loaded += 1
    return False


class Witness(Protocol):
    """What a proxy needs of its tracer."""

    values: ExampleValues
    texts: dict[str, None]

    def stop(self, reason: str) -> NoReturn:
        """End the trace."""


class TruthfulProxy(InPlaceProxy):
    """A proxy whose answers are those of the value that it stands for."""

    tracer: Witness  # type: ignore[assignment]  # fx's own class knows nothing of values

    def __getattr__(self, k: str) -> Any:
        if k == "_is_param":  # nn.Parameter asks whether a tensor poses as one, before it asks for the class
            raise AttributeError(k)
        frame = _asking(1)
        if _is_machinery(frame):
            return super().__getattr__(k)
        is_plain = instruction(frame) in PLAIN_ACCESS
        if k in _MEMORY:
            self._stop(f"the memory ({k!r})")
        if k in _SINGLETONS and is_plain and _is_compared_by_identity(frame):
            self._stop(f"which object {k!r} is")
        if not is_plain or not hasattr(torch.Tensor, k):
            try:
                has = self._is_known_to_have(k)
            except UnknownValueError:
                has = is_plain  # or it would not be read
                if not has:
                    self._stop(f"whether there is an attribute {k!r}")
            if not has:
                raise AttributeError(f"{self._known_class().__name__!r} object has no attribute {k!r}")
        attribute = TruthfulAttribute(self, k)
        if not hasattr(torch.Tensor, k) and attribute.is_known_to_be_none():
            self.tracer.stop(f"{k!r} of {self.node.name!r} is None, which symbolic tracing cannot represent")
        return attribute

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> Any:  # what isinstance asks
        frame = _asking(1)
        asked = not _is_machinery(frame) and python_asks(frame)
        if asked is None:
            self._stop("the class")
        return self.class_of_value() if asked else type(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(torch.Tensor, name) and not _is_machinery(sys._getframe(1)):
            self._stop(f"what becomes of {name!r}, which is set,")
        super().__setattr__(name, value)

    def class_of_value(self) -> type:
        """The class of the value.

        Raises:
            TraceError: It is not known.
        """
        try:
            return self._known_class()
        except UnknownValueError:
            self._stop("the class")

    def is_known_to_be_none(self) -> bool:
        """Whether the value is None, as far as that is known."""
        try:
            return self._value() is None
        except UnknownValueError:
            return False

    def __str__(self) -> str:
        return self._text(_asking(1), str)

    def __repr__(self) -> str:
        return self._text(_asking(1), repr)

    def __format__(self, format_spec: str) -> str:
        return self._text(_asking(1), lambda value: format(value, format_spec))

    def _text(self, frame: FrameType, to_text: Callable[[Any], str]) -> str:
        if _is_machinery(frame):
            return super().__repr__()
        is_for_people = _FOR_PEOPLE.search(statement_at(frame.f_code.co_filename, frame.f_lineno)) is not None
        try:
            known = self._value()
        except UnknownValueError:
            known = None
        if known is None or isinstance(known, torch.Tensor):
            if not is_for_people:
                self._stop("the text")
            return super().__repr__()
        if not is_for_people:
            self.tracer.texts[f"{frame.f_code.co_filename}:{frame.f_lineno}"] = None
        return to_text(known)

    def __hash__(self) -> int:
        if not _is_machinery(_asking(1)):
            self._stop("the hash")
        return id(self)

    def __int__(self) -> int:
        self._stop("the value as an integer")

    def __float__(self) -> float:
        self._stop("the value as a number")

    def __complex__(self) -> complex:
        self._stop("the value as a number")

    def __round__(self, ndigits: int | None = None) -> int:
        self._stop("the value as a number")

    def __len__(self) -> int:
        self._stop("the length")

    def _value(self) -> Any:
        return self.tracer.values.of(self.node)

    def _known_class(self) -> type:
        return self.tracer.values.class_of(self.node)

    def _is_known_to_have(self, name: str) -> bool:
        return self.tracer.values.has(self.node, name)

    def _stop(self, question: str) -> NoReturn:
        self.tracer.stop(f"{question} of {self.node.name!r} is not known in symbolic tracing")


class _MatchedAsSequence(list[Any], metaclass=ABCMeta):
    """No proxy is one for ``isinstance``, but ``match x: case (a, b):`` takes it for a sequence, and asks its length.

    Python looks at a flag of the class, which a class inherits that is registered with a sequence.
    """


_MatchedAsSequence.register(TruthfulProxy)


class TruthfulAttribute(TruthfulProxy, Attribute):
    """An attribute of a value; a node of the graph only once something is done with it."""

    root: TruthfulProxy

    def _value(self) -> Any:
        try:
            return getattr(self.root._value(), self.attr)
        except AttributeError as error:
            raise UnknownValueError(self.attr) from error

    def _known_class(self) -> type:
        return class_of(self._value())

    def _is_known_to_have(self, name: str) -> bool:
        return hasattr(self._value(), name)

    def _stop(self, question: str) -> NoReturn:
        self.tracer.stop(f"{question} of {self.attr!r} of {self.root.node.name!r} is not known in symbolic tracing")
