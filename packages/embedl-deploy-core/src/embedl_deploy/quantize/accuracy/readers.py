"""Finds the products in a fused module that read its input directly, and whether anything else reads it.

Dividing the channels of a tensor, and multiplying the columns of weights, is exact only if all that reads the tensor is
such products. What a module's ``forward`` does with its input is seen when it runs.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from embedl_deploy.quantize.reporting.corrections import NotCorrected, WhyNotCorrected, not_corrected


class ReaderWatch:
    """Watches the calls of one module.

    Args:
        module: The fused module; its first argument is what matters.
        products: Its products, by name.
        seen: Called with the tensor, at each call in which a product reads it.

    Attributes:
        reads: Names of products that multiply the tensor.
        problem: Why the channels of the tensor cannot be divided for this module.
        asleep: Whether to look away; only between calls of the model may that change.
    """

    def __init__(
        self, module: nn.Module, products: Mapping[str, nn.Module], seen: Callable[[torch.Tensor], None]
    ) -> None:
        self.reads: set[str] = set()
        self.problem: NotCorrected | None = None
        self.asleep = False
        self._seen = seen
        self._given: Any = None
        self._inside = 0
        self._reading = False
        self._mode: _Uses | None = None
        self._handles = [
            module.register_forward_pre_hook(self._called, with_kwargs=True),
            module.register_forward_hook(self._returned, always_call=True),
        ]
        for name, product in products.items():
            self._handles.append(product.register_forward_pre_hook(self._product_called(name)))
            self._handles.append(product.register_forward_hook(self._product_returned, always_call=True))

    def remove(self) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.asleep:
            return
        first = next(iter(inspect.signature(module.forward).parameters))
        self._given, self._reading = args[0] if args else kwargs[first], False
        self._mode = _Uses(self._used)
        self._mode.__enter__()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def _returned(self, *_: Any) -> None:
        if self._mode is not None:
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # as above
        if self._reading:
            self._seen(self._given)
        self._given, self._mode, self._reading = None, None, False

    def _product_called(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def called(_product: nn.Module, args: tuple[Any, ...]) -> None:
            self._inside += 1
            if self.asleep:
                return
            if args[0] is self._given:
                self.reads.add(name)
                self._reading = True
            elif name in self.reads:
                self._found(not_corrected(WhyNotCorrected.READ_BY_OTHER_PRODUCTS, product=name))

        return called

    def _product_returned(self, *_: Any) -> None:
        self._inside -= 1

    def _used(self, function: str, arguments: Collection[Any]) -> None:
        if self._inside == 0 and any(value is self._given for value in arguments):
            self._found(not_corrected(WhyNotCorrected.READ_BY_OTHER_FUNCTIONS, function=function))

    def _found(self, problem: NotCorrected) -> None:
        self.problem = self.problem or problem


class _Uses(TorchFunctionMode):
    """Tells of every function that makes a tensor: its name and what it is given."""

    def __init__(self, tell: Callable[[str, Collection[Any]], None]) -> None:
        super().__init__()
        self.tell = tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(value, torch.Tensor) for value in pytree.tree_leaves(result)):  # else it asks for the shape
            self.tell(getattr(func, "__name__", repr(func)), pytree.tree_leaves((args, kwargs)))
        return result
