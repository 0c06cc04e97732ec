"""Traces a model in another type, to distinguish types taken from the model from types that its author wrote.

A trace of a model in float32 holds ``to(float32)`` both for ``h.to(x.dtype)`` and for the upcast of a norm. So the
model is traced in bfloat16, on tensors without values: now the first says bfloat16 and the second float32. It costs no
more than any trace, and a model that asks whether it is in 16 bits, to cast what it has upcast, is heard. Its tensors
and types are its own again afterwards. Whether it does the same in its own type is found out by comparison.

A model on the meta device is traced as on the CPU, in both types: kernels for the meta device give other layouts.

What ``torch.finfo`` says of the model's type is marked in the same way, by a number that is a few last bits of float64
from the true one, and stands for ``torch.finfo(dtype).min``. A number that is computed from such a limit is a literal:
so that it is right for the model's own type, ``eps`` and ``tiny`` are near those of that.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from embedl_deploy.capture.operand_types import OperandsOfOneType
from embedl_deploy.errors import CaptureError
from embedl_deploy.graph.edit import deep_copy

#: The type in which a model is traced, by its own. One that authors rarely write themselves.
_MARKERS = {torch.float32: torch.bfloat16, torch.float64: torch.bfloat16, torch.bfloat16: torch.float16}
_PLAIN_TENSORS = (torch.Tensor, nn.Parameter, nn.Buffer)
_NEARLY_ONE = 1 - 2.0**-40


class NotToldApartError(CaptureError):
    """What is of the model's type and what its author wrote are of the same type in a trace; it says why."""


@dataclass(frozen=True)
class MarkedModel:
    """A model in another type, or on another device, or both.

    Attributes:
        model: A copy without values.
        own: The model's own type; ``None`` if it has none, or several.
        dtype: The other type; ``None`` if it is traced in its own.
        limits: What ``torch.finfo`` says of the other type while it is traced, by name.
    """

    model: nn.Module
    own: torch.dtype | None
    dtype: torch.dtype | None
    limits: dict[str, float]

    @staticmethod
    def of(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, mark: bool) -> "MarkedModel | None":
        """A model in another type or on another device.

        Args:
            model: The model.
            args: Its inputs.
            kwargs: Its keyword inputs.
            mark: Whether to trace it in another type, if it has one of its own and no tensors of other classes.

        Returns:
            The model; ``None`` if it can be traced as it is, on its device.
        """
        tensors = [*model.parameters(), *model.buffers()]
        given = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        if any(type(tensor) not in _PLAIN_TENSORS for tensor in (*tensors, *given)):
            return None
        own = _own_type(list(model.parameters())) or _own_type(given)
        dtype = _MARKERS.get(own) if mark and own is not None else None
        if dtype is None and not any(tensor.is_meta for tensor in (*tensors, *given)):
            return None

        mode = FakeTensorMode(allow_non_fake_inputs=True)
        stand_ins: dict[int, Any] = {}
        for tensor in tensors:
            with mode:
                kind = dtype if dtype is not None and tensor.dtype is own else tensor.dtype
                fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind, device=device_for(tensor))
            is_parameter = isinstance(tensor, nn.Parameter)
            stand_ins[id(tensor)] = nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_parameter else fake

        if own is None or dtype is None:
            return MarkedModel(deep_copy(model, stand_ins), own, None, {})
        near, far = torch.finfo(own), torch.finfo(dtype)
        limits = {"min": far.min, "max": far.max, "eps": near.eps, "tiny": near.tiny, "resolution": near.resolution}
        limits = {name: value * _NEARLY_ONE for name, value in limits.items()}
        return MarkedModel(deep_copy(model, stand_ins), own, dtype, limits)

    def converted(self, inputs: Any) -> Any:
        """Example inputs in the other type, and with values, which are zeros where there were none."""

        def in_other_type(value: torch.Tensor) -> torch.Tensor:
            kind = self.dtype if self.dtype is not None and value.dtype is self.own else value.dtype
            if kind is value.dtype and not value.is_meta:
                return value
            value_there = torch.zeros_like(value, device=device_for(value)) if value.is_meta else value.detach()
            return value_there.to(kind).requires_grad_(value.requires_grad)

        return pytree.tree_map_only(torch.Tensor, in_other_type, inputs)

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Around a trace in this thread; others may not trace meanwhile."""
        if self.own is None or self.dtype is None:
            yield
            return
        real, here = torch.finfo, threading.get_ident()
        limits = _Limits(self.dtype, self.limits)

        def finfo(dtype: torch.dtype | None = None) -> Any:
            if threading.get_ident() == here and dtype is self.dtype:
                return limits
            return real() if dtype is None else real(dtype)

        torch.finfo = finfo  # type: ignore[assignment,misc]  # a class, which no one derives from
        try:
            with _NumbersOfTheModel(self.own, self.dtype), OperandsOfOneType(self.dtype):
                yield
        finally:
            torch.finfo = real  # type: ignore[misc]

    def refuse_autocast(self, graph_module: fx.GraphModule) -> None:
        """Refuse what was traced under ``torch.autocast`` to the type that stands for the model's.

        Raises:
            NotToldApartError: There is such a part.
        """
        if self.dtype is None:
            return
        parts = [part for part in graph_module.modules() if isinstance(part, fx.GraphModule)]
        autocast = torch.ops.higher_order.wrap_with_autocast
        calls = [node for part in parts for node in part.graph.find_nodes(op="call_function", target=autocast)]
        if any(node.args[2] and node.args[1] in (None, self.dtype) for node in calls):
            raise NotToldApartError(f"computes under torch.autocast to {self.dtype}")

    def named_limits(self) -> dict[float, str]:
        """The names of the limits, by their numbers."""
        return {value: name for name, value in self.limits.items()}

    def undo(self, graph_module: fx.GraphModule, model: nn.Module) -> None:
        """Give a graph that was captured of it the tensors of the model, and ``meta["val"]`` the model's type.

        Args:
            graph_module: Changed in place.
            model: The model.
        """
        parameters = dict(model.named_parameters(remove_duplicate=False))
        buffers = dict(model.named_buffers(remove_duplicate=False))
        for path, part in graph_module.named_modules(remove_duplicate=False):
            for table, real in ((part._parameters, parameters), (part._buffers, buffers)):
                for name in table:
                    full = f"{path}.{name}" if path else name
                    if full in real:
                        table[name] = real[full]
        made: dict[Any, torch.Tensor] = {}  # one for all alike: fake tensors of open sizes are slow to make

        def in_own_type(value: FakeTensor) -> torch.Tensor:
            if self.own is None or value.dtype is not self.dtype:
                return value
            alike = (*map(_expression, (*value.shape, *value.stride())), value.device)
            if alike not in made:
                made[alike] = value.to(self.own)
            return made[alike]

        for part in graph_module.modules():
            if isinstance(part, fx.GraphModule):
                for node in part.graph.nodes:
                    if "val" in node.meta:
                        node.meta["val"] = pytree.tree_map_only(FakeTensor, in_own_type, node.meta["val"])


def device_for(tensor: torch.Tensor) -> torch.device:
    """The device on which a tensor is traced: its own, and the CPU for the meta device, which has no values."""
    return torch.device("cpu") if tensor.is_meta else tensor.device


def _expression(size: Any) -> Any:
    """Of a size: the number, or the expression of what is open."""
    return size.node.expr if isinstance(size, torch.SymInt) else size


def _own_type(tensors: list[torch.Tensor]) -> torch.dtype | None:
    """The one floating-point type of tensors."""
    types = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return next(iter(types)) if len(types) == 1 else None


class _Limits:
    """What ``torch.finfo`` gives."""

    def __init__(self, dtype: torch.dtype, limits: dict[str, float]) -> None:
        real = torch.finfo(dtype)
        self.bits, self.dtype = real.bits, real.dtype
        self.min, self.max, self.eps = limits["min"], limits["max"], limits["eps"]
        self.tiny = self.smallest_normal = limits["tiny"]
        self.resolution = limits["resolution"]


class _NumbersOfTheModel(TorchFunctionMode):
    """Within it ``torch.tensor([0.1], dtype=…)`` in the marker is such a tensor in the model's own type, converted.

    It is a constant of the graph, which the marker would round; one number alone is a call of ``full``.
    """

    def __init__(self, own: torch.dtype, dtype: torch.dtype) -> None:
        super().__init__()
        self.own, self.dtype = own, dtype

    def __torch_function__(self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor or func is torch.as_tensor:
            of_the_model, data = kwargs.get("dtype") is self.dtype, args[0] if args else kwargs.get("data")
            device = kwargs.get("device")
        elif func is torch.Tensor.new_tensor:
            of_the_model, data = kwargs.get("dtype", args[0].dtype) is self.dtype, args[1]
            device = kwargs.get("device", args[0].device)
        else:
            return func(*args, **kwargs)
        if not of_the_model or not all(isinstance(value, (bool, int, float)) for value in pytree.tree_leaves(data)):
            return func(*args, **kwargs)
        if isinstance(data, (bool, int, float)):
            return torch.full((), data, dtype=self.dtype, device=device)
        return torch.tensor(data, dtype=self.own, device=device).to(self.dtype)
