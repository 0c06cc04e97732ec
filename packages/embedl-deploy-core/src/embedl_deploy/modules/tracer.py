"""Symbolic tracing that keeps fused, converted and backend-declared modules whole."""

import operator
import threading
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import InputError
from embedl_deploy.exclusive import global_state
from embedl_deploy.graph.lookup import is_plain_torch_module
from embedl_deploy.modules.base import ConvertedModule, FusedModule
from embedl_deploy.validation.checked import checked


def _augmented(name: str) -> Callable[["InPlaceProxy", Any], Any]:
    """A method that records the augmented assignment ``name``, such as ``"add"`` for ``+=``."""

    def method(self: "InPlaceProxy", other: Any) -> Any:
        function = getattr(operator, f"i{name}")
        # The node's name is that of the plain operation, as fx gives it.
        return self.tracer.create_proxy("call_function", function, (self, other), {}, name=name)

    return method


class InPlaceProxy(fx.Proxy):
    """A proxy that records ``x += y`` as what it is.

    Python falls back to ``x = x + y`` for a class without ``__iadd__``. For tensors that is another thing: it makes a
    new one, with another dtype perhaps, while everything else that refers to ``x`` continues seeing the old values.
    """

    __iadd__ = _augmented("add")
    __isub__ = _augmented("sub")
    __imul__ = _augmented("mul")
    __itruediv__ = _augmented("truediv")
    __ifloordiv__ = _augmented("floordiv")
    __imod__ = _augmented("mod")
    __ipow__ = _augmented("pow")
    __iand__ = _augmented("and")
    __ior__ = _augmented("or")
    __ixor__ = _augmented("xor")
    __ilshift__ = _augmented("lshift")
    __irshift__ = _augmented("rshift")


class LeafTracer(fx.Tracer):  # noqa: TID251 - the one that takes the lock
    """A tracer whose leaves are the modules that patterns can see.

    Leaves are ``torch.nn`` modules, subclasses of them that change nothing about what is computed, fused and
    converted modules, and the given ``leaf_modules``. Everything else is traced through, a ``Conv2d`` subclass with a
    ``forward`` of its own included: what it computes becomes visible.

    Attributes:
        failed_module: After a failed trace, the path of the innermost module whose ``forward`` raised.
    """

    @checked
    def __init__(self, leaf_modules: Iterable[type[nn.Module]] = ()) -> None:
        super().__init__()
        self._leaves: tuple[type[nn.Module], ...] = (FusedModule, ConvertedModule, *leaf_modules)
        self._thread = threading.get_ident()
        self.failed_module: str | None = None

    def trace(
        self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> fx.Graph:
        """The graph of ``root``. One thread at a time traces; others wait, or continue calling their own models."""
        with global_state:
            self._thread = threading.get_ident()
            return super().trace(root, concrete_args)  # type: ignore[arg-type]  # fx takes tuples as well

    @property
    def is_tracing(self) -> bool:
        """Whether a call of a module is part of the trace: torch.fx intercepts those of all threads."""
        return threading.get_ident() == self._thread

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """What a module's attribute is while tracing."""
        return super().getattr(attr, attr_val, parameter_proxy_cache) if self.is_tracing else attr_val

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for the value of a node while tracing."""
        return InPlaceProxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a call of ``m`` becomes one node."""
        return isinstance(m, self._leaves) or is_plain_torch_module(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace a call of ``m``, and remember it if it is the innermost that fails."""
        if not self.is_tracing:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed_module is None:
                self.failed_module = self.path_of_module(m)
            raise


@checked
def symbolic_trace(
    root: nn.Module | Callable[..., Any],
    concrete_args: dict[str, Any] | None = None,
    *,
    leaf_modules: Iterable[type[nn.Module]] = (),
) -> fx.GraphModule:
    """``torch.fx.symbolic_trace`` that keeps fused, converted and the given leaf modules whole.

    Args:
        root: The model; its modules are shared with the result, not copied.
        concrete_args: As for ``torch.fx.symbolic_trace``: inputs to fix while tracing.
        leaf_modules: Further module classes that become one node each.

    Returns:
        The traced graph module.

    Raises:
        InputError: ``root`` is a class.
    """
    if isinstance(root, type):
        raise InputError(f"root is the class {root.__name__}; pass an instance: {root.__name__}(...).")
    tracer = LeafTracer(leaf_modules)
    graph = tracer.trace(root, concrete_args)
    name = type(root).__name__ if isinstance(root, nn.Module) else getattr(root, "__name__", "traced")
    return fx.GraphModule(tracer.root if isinstance(tracer.root, nn.Module) else torch.nn.Module(), graph, name)
