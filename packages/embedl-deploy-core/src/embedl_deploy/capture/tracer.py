"""A tracer that uses the example inputs, and stops at code that a graph cannot represent.

Beyond what single values are asked (:mod:`embedl_deploy.capture.proxies`):

=============================================  =================  ===================================================
the model asks or does                         torch.fx           here
=============================================  =================  ===================================================
``mask is None``, mask not given               no                 yes: the input is its default, and leaves the graph;
                                                                  without example inputs as well
``mask is None``, mask given as None           no                 yes: the input stays, and is not read
``len(xs)`` of ``*xs``, ``"m" in kwargs``      a proxy            known: one input for each value that is given
catches the error that stopped the trace       continues            the trace ends with that error
``torch.rand(...)``                            a constant         tracing fails
``generator=torch.Generator()``                a constant         tracing fails
``with torch.autocast(...)``                   lost               tracing fails
``with torch.no_grad()``                       lost               lost, with a note
``with torch.no_grad(): self.p.mul_(x)``       lost               tracing fails
=============================================  =================  ===================================================

Where tracing fails, ``torch.export`` may take over, which runs the model's code on tensors.
"""

import dataclasses
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.fx.immutable_collections import immutable_dict
from torch.fx.proxy import TraceError
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from embedl_deploy.capture.asking_builtins import builtins_know_proxies, gradient_mode_is_asked_by
from embedl_deploy.capture.fixed_sizes import UnknownLengthError
from embedl_deploy.capture.inputs import TracedInputs
from embedl_deploy.capture.proxies import TruthfulProxy
from embedl_deploy.capture.random_numbers import RandomNumbers, another_generator
from embedl_deploy.capture.user_code import note_source
from embedl_deploy.capture.values import ExampleValues
from embedl_deploy.capture.written_tensors import attributes_written_by
from embedl_deploy.exclusive import global_state
from embedl_deploy.modules import LeafTracer

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


class CaptureTracer(LeafTracer):
    """A :class:`LeafTracer` for known inputs.

    Args:
        leaf_modules: Further classes to keep whole.
        args: Example inputs; ``None`` if nothing is known of the inputs.
        kwargs: Example keyword inputs.
        note_read: Is told each operation of ATen that is carried out while tracing, and its operands.
        numbers: Is told each call, and knows which generators are the model's.

    Attributes:
        fixed: The inputs that were replaced by a value while tracing, by name.
        needed: The inputs that there are examples of, by name, and whether ``None`` is their default.
        positional: The inputs that may be given by position.
        texts: Where in the model's code text was made of traced values.
        plain_dictionaries: Classes of dictionaries of which the graph has plain ones.
        taken_for_tensors: Inputs that the model asked about where there are no example inputs.
        without_gradient: Paths of the modules that switch gradients on or off by themselves.
        values: What is known of traced values.
    """

    values: ExampleValues

    def __init__(
        self,
        leaf_modules: Iterable[type[nn.Module]] = (),
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        note_read: Callable[[Any, Any], None] = lambda func, operands: None,
        numbers: RandomNumbers | None = None,
    ) -> None:
        super().__init__(leaf_modules)
        self.note_read = note_read
        self._numbers = numbers
        self._called = ""
        self.fixed: dict[str, Any] = {}
        self.needed: dict[str, bool] = {}
        self.positional: tuple[str, ...] = ()
        self.texts: dict[str, None] = {}
        self.plain_dictionaries: dict[str, None] = {}
        self.without_gradient: dict[str, None] = {}
        self.taken_for_tensors: list[str] = []
        self._example = None if args is None else (args, kwargs or {})
        self._stopped: TraceError | None = None
        self._context = _context()

    def trace(
        self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> fx.Graph:
        """The graph of ``root``.

        Raises:
            TraceError: The code depends on what is not known, even if it catches the error itself.
        """
        self._context = _context()
        with ExitStack() as stack:
            stack.enter_context(global_state)
            stack.enter_context(_CarriedOut(self))
            stack.enter_context(builtins_know_proxies(root if isinstance(root, nn.Module) else nn.Module()))
            if self._example is None:
                mode = gradient_mode_is_asked_by(self.stop, is_asking=lambda: self.is_tracing)
                stack.enter_context(mode)
            graph = super().trace(root, concrete_args)
        if self._stopped is not None:
            raise self._stopped
        # They hold the model, and fx leaves its tracers to the garbage collector.
        self.root, self.graph = nn.Module(), fx.Graph()
        self.taken_for_tensors = self.values.taken_for_tensors
        del self.values
        return graph

    def stop(self, reason: str, kind: type[TraceError] = TraceError) -> NoReturn:
        """End the trace, now or, if the model catches the error, later."""
        error = kind(reason)
        if self._stopped is None:
            self._stopped, self.failed_module = error, self._current_module()
        raise error

    def _current_module(self) -> str:
        return next(reversed(self.module_stack.values()))[0] if self.module_stack else ""

    @property
    def is_tracing(self) -> bool:
        """Whether a call of a module is part of the trace, and not made to find out a value."""
        return super().is_tracing and not self._finding_out()

    def _finding_out(self) -> bool:
        values = getattr(self, "values", None)
        return values is not None and values.computing

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for the value of a node while tracing."""
        return TruthfulProxy(node, self)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Stop: the trace would follow one branch for all values."""
        self.stop(f"control flow depends on {obj.node.name!r}, whose value is not known in symbolic tracing")

    def iter(self, obj: fx.Proxy) -> Any:
        """Stop: the number of items is not known."""
        what = f"a loop iterates over {obj.node.name!r}, whose length is not known in symbolic tracing"
        self.stop(what, UnknownLengthError)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        """Make a node, unless it is computed in a context that a graph cannot represent."""
        calls = kind in ("call_function", "call_method")  # a module writes to its inputs or into its own
        without_gradient = calls and self._context[0] and not torch.is_grad_enabled()
        if kind.startswith("call_") and self._context != (context := _context()):
            if self._context[1:] != context[1:]:
                self.stop(
                    "a symbolic trace cannot contain torch.autocast; use it around calls of the model instead, and "
                    "choose the type of the file when you export: export_onnx(dtype=...)"
                )
            if self._context[0] != context[0]:
                self.without_gradient[self._current_module()] = None
        if self._numbers is not None:
            self._numbers.note_call()
        node = super().create_node(kind, *args, **kwargs)
        if kind.startswith("call_") and not self._finding_out():
            note_source(node, CaptureTracer.trace.__code__)
        if without_gradient and (written := attributes_written_by(node)):
            self.stop(f"{written[0]!r} is written to with gradients disabled, which a symbolic graph cannot do")
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> fx.Proxy:
        """A proxy, unless its value is None, or may be: Python does not ask a proxy whether it is."""
        self._called = getattr(target, "__name__", str(target))
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **named)
        if self.is_tracing and hasattr(self, "values") and self.values.may_be_none(proxy.node):
            self.stop(f"{proxy.node.name!r} is or may be None, which symbolic tracing cannot represent")
        return proxy

    def create_arg(self, a: Any) -> Any:
        """What a value is as an argument of a node; a dictionary stays of its class, where that can be made again."""
        if _is_output_class(a):
            return self.create_node("call_function", type(a), (), {k: self.create_arg(v) for k, v in a.items()})
        if isinstance(a, dict) and type(a) not in (dict, OrderedDict, immutable_dict):
            self.plain_dictionaries[type(a).__name__] = None
        if type(a) is OrderedDict:
            return self.create_node(
                "call_function", OrderedDict, ([(k, self.create_arg(v)) for k, v in a.items()],), {}
            )
        if type(a) is torch.Generator and self._numbers is not None and not self._numbers.owns(a):
            self.stop(another_generator(self._called))
        return super().create_arg(a)

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> tuple[Any, list[Any]]:
        """What ``root_fn`` is called with: proxies for its inputs, values for those that are fixed."""
        _refuse_what_a_decorator_hides(root_fn, self.stop)
        called, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        signature = inspect.signature(inspect.unwrap(root_fn))
        inputs = TracedInputs(self, signature, self._example, (self.root,) if is_module else ())
        args = inputs.in_place_of(args)
        self.fixed, self.needed, self.positional = inputs.fixed, inputs.needed, inputs.positional
        self.values = ExampleValues(self.root, self.graph, inputs.given)
        if inputs.are_all_fixed and self._example is None:
            self.stop("every input has a default, and without example inputs nothing says which of them are given")
        return called, args


def _is_output_class(value: Any) -> bool:
    """Whether a value is a dataclass that is a dictionary of its fields, as Hugging Face's libraries give."""
    kind: Any = type(value)
    return issubclass(kind, dict) and dataclasses.is_dataclass(kind) and kind in pytree.SUPPORTED_NODES


def _refuse_what_a_decorator_hides(forward: Any, stop: Callable[[str], NoReturn]) -> None:
    """Stop where torch.fx would call a decorator's function with the inputs of the function that it decorates."""
    inner = inspect.unwrap(forward)
    if inner is forward:
        return
    shown, hidden = inspect.signature(forward, follow_wrapped=False).parameters, inspect.signature(inner).parameters
    gathers = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in hidden.values())
    if gathers and list(shown) != list(hidden):
        stop("forward takes *args or **kwargs behind a decorator, which torch.fx does not support")


def _context() -> tuple[bool, ...]:
    """Whether gradients are computed, and for which kinds of device types are chosen by torch.autocast."""
    return (torch.is_grad_enabled(), *map(torch.is_autocast_enabled, _AUTOCAST_DEVICES))


class _CarriedOut(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Sees what a trace carries out, on tensors; stops one that draws a random number, which would be a constant."""

    def __init__(self, tracer: CaptureTracer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self._tracer = tracer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._tracer.is_tracing:
            if torch.Tag.nondeterministic_seeded in func.tags:
                name = func.__name__.partition(".")[0]
                self._tracer.stop(f"{name} draws random numbers, which would be the same ones in every call")
            self._tracer.note_read(func, (args, kwargs))
        return func(*args, **(kwargs or {}))
