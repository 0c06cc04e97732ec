"""Tracing that knows the example inputs, and does not pass over what a graph cannot say.

In a symbolic trace a proxy stands for every input, and Python code that asks about it gets the proxy's answer:

====================================  ==========================  ===============================================
the model asks or does                a proxy alone               here
====================================  ==========================  ===============================================
``mask is None``, mask not given      no                          yes: the input is its default, and leaves the graph
``mask is None``, mask given as None  no                          yes: the input stays, and is not read
``torch.is_tensor(x)``                no                          for inputs, what they are; else tracing fails
``with torch.autocast(...)``          lost from the graph         tracing fails
====================================  ==========================  ===============================================

Where tracing fails, ``torch.export`` may take over, which runs the model's code on tensors.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError

from embedl_deploy.modules import LeafTracer


class CaptureTracer(LeafTracer):
    """A :class:`LeafTracer` for known inputs.

    Args:
        leaf_modules: Further classes to keep whole.
        args: Example inputs; ``None`` if nothing is known of the inputs.
        kwargs: Example keyword inputs.

    Attributes:
        fixed: The inputs that were replaced by a value while tracing, by name.
    """

    def __init__(
        self, leaf_modules: Iterable[type[nn.Module]], args: tuple[Any, ...] | None, kwargs: dict[str, Any]
    ) -> None:
        super().__init__(leaf_modules)
        self.fixed: dict[str, Any] = {}
        self._example = None if args is None else (args, kwargs)
        self._given: dict[str, Any] | None = None

    def trace(
        self, root: nn.Module | Callable[..., Any], concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> fx.Graph:
        """The graph of ``root``."""
        with self._truthful():
            graph = super().trace(root, concrete_args)  # type: ignore[arg-type]  # fx takes tuples as well
        # They hold the model, and fx leaves its tracers to the garbage collector.
        self.root, self.graph, self._given = nn.Module(), fx.Graph(), None
        return graph

    def create_args_for_root(
        self, root_fn: Any, is_module: bool, concrete_args: dict[str, Any] | tuple[Any, ...] | None = None
    ) -> tuple[Any, list[Any]]:
        """What ``root_fn`` is called with: proxies for its inputs, values for those that are fixed."""
        called, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        signature = inspect.signature(inspect.unwrap(root_fn))
        self._given = self._bound(signature, is_module)
        if self._given is None:
            return called, args
        return called, [self._fixed(arg, signature) for arg in args]

    def _bound(self, signature: inspect.Signature, is_module: bool) -> dict[str, Any] | None:
        """The example inputs by the names of parameters; ``None`` if there are none, or they do not fit."""
        if self._example is None:
            return None
        args, kwargs = self._example
        try:
            return signature.bind(*([self.root] if is_module else []), *args, **kwargs).arguments
        except TypeError:  # told where shapes are propagated, with the names of the inputs
            return None

    def _fixed(self, arg: Any, signature: inspect.Signature) -> Any:
        """A proxy, or the value that takes its place."""
        assert self._given is not None
        if not isinstance(arg, fx.Proxy):
            return arg
        name = str(arg.node.target)
        parameter = signature.parameters.get(name)  # inputs in *args and **kwargs have a name that is none
        if parameter is None:
            return arg
        if name in self._given:
            if self._given[name] is not None:
                return arg
            self.fixed[name] = None
            return None
        self.fixed[name] = parameter.default  # there is one, for the inputs fit without the parameter
        self.graph.erase_node(arg.node)
        return parameter.default

    def _is_tensor(self, node: fx.Node) -> bool:
        """Whether a traced value is a tensor.

        Raises:
            TraceError: That is not known.
        """
        name = str(node.target)
        if node.op == "placeholder" and name.startswith("*"):
            return False
        if node.op == "placeholder" and self._given is not None and name in self._given:
            return isinstance(self._given[name], torch.Tensor)
        if node.op == "placeholder" and self._given is None and not node.args:
            return True
        raise TraceError(f"whether {node.name!r} is a tensor, which torch.is_tensor is asked, is not known in tracing")

    @contextmanager
    def _truthful(self) -> Iterator[None]:
        """Let ``torch.is_tensor`` and ``torch.autocast`` know of the trace."""
        is_tensor = torch.is_tensor
        enter: Callable[[torch.autocast], Any] = torch.autocast.__enter__

        def is_tensor_or_stands_for_one(obj: Any) -> bool:
            return self._is_tensor(obj.node) if isinstance(obj, fx.Proxy) else is_tensor(obj)

        def enter_unless_enabled(block: torch.autocast) -> Any:
            if block._enabled:
                raise TraceError(
                    "a symbolic trace cannot hold torch.autocast; leave it to who calls the model, and choose the type "
                    "of the file when exporting: export_onnx(dtype=...)"
                )
            return enter(block)

        torch.is_tensor = is_tensor_or_stands_for_one  # type: ignore[assignment]
        torch.autocast.__enter__ = enter_unless_enabled  # type: ignore[method-assign]
        try:
            yield
        finally:
            torch.is_tensor = is_tensor
            torch.autocast.__enter__ = enter  # type: ignore[method-assign]
