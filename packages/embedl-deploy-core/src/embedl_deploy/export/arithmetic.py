"""A model run operator by operator: with every result rounded to fewer digits, or watched for what leaves its type.

A format has a precision and a range. Rounding to its digits with the range of float32 shows what its precision costs a
model; the first finite operands with an infinite result show where its range ends.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from embedl_deploy.graph.inputs import bind_inputs
from embedl_deploy.verify import output_tensors, run_unchanged

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class OutOfRange:
    """Where numbers first left the range of their type.

    Attributes:
        place: The module and operator, or the tensor, in words.
        largest: The magnitude that it has in float32; ``None`` if that is not known.
        dtype: The type that does not hold it.
    """

    place: str
    largest: float | None
    dtype: torch.dtype

    def __str__(self) -> str:
        kind, limits = str(self.dtype).removeprefix("torch."), torch.finfo(self.dtype)
        if self.largest is None:
            return f"{self.place} is infinite or no number in {kind}, of finite numbers"
        if self.largest > limits.max:
            return f"{self.place} reaches {self.largest:.3g}, and {kind} ends at {limits.max:g}"
        smallest = limits.smallest_normal * limits.eps
        return f"{self.place} is {self.largest:.3g} at most, and {kind} has nothing between 0 and {smallest:.1g}"


def rounded_to(digits: int, grid: float = 1.0) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that rounds float32 and float64 to ``digits`` binary digits, at any magnitude; others stay.

    Args:
        digits: How many.
        grid: What the numbers that are rounded to are multiplied by: between 1 and 2, for another grid as fine. What
            has no more digits already stays as it is.
    """

    def nearest(x: torch.Tensor, held: int) -> torch.Tensor:
        spread = x * (2.0 ** (held - digits) + 1)  # Veltkamp's splitting (Dekker 1971)
        high = spread - (spread - x)
        return torch.where(high.isfinite(), high, x)

    def rounded(x: torch.Tensor) -> torch.Tensor:
        held = {torch.float32: 24, torch.float64: 53, torch.float16: 11}.get(x.dtype, 0)
        if held <= digits:
            return x
        near = nearest(x, held)
        return near if grid == 1.0 else torch.where(near == x, x, nearest(x / grid, held) * grid)

    return rounded


def run_rounded(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], digits: int | None, grid: float = 1.0
) -> list[torch.Tensor]:
    """The outputs of a model whose parameters, inputs and intermediate values have so many binary digits.

    Equal values are sorted as ONNX has it, the lower index first; PyTorch promises no order.

    Args:
        model: Not changed.
        args: Its inputs.
        kwargs: Its keyword inputs.
        digits: ``None`` to round nothing.
        grid: As for :func:`rounded_to`.
    """
    return _run(model, args, kwargs, _Rounding(None if digits is None else rounded_to(digits, grid)))


def run_watched(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], originals: Mapping[str, torch.Tensor]
) -> tuple[list[torch.Tensor], OutOfRange | None]:
    """The outputs of a model, and where its numbers first left the range of their type, upwards or to zero.

    Args:
        model: Not changed.
        args: Its inputs.
        kwargs: Its keyword inputs.
        originals: Its parameters, buffers and inputs (``"input 0"`` and so on) before they were converted.
    """
    watching = _Watching(originals)
    return _run(model, args, kwargs, watching), watching.left or watching.masked


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of torch
    """Sees every operator of a model, and knows which module it is in."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.stored: dict[int, str] = {}
        self.paths: list[str] = []
        self.node = ""

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.operate(func, args, kwargs or {})

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def place(self, func: Any) -> str:
        """The module and operator, in words."""
        name = func.name().split("::")[-1].split(".")[0] if hasattr(func, "name") else str(func)
        path = next((path for path in reversed(self.paths) if path), "")
        if path:
            return f"what {name} computes in module {path!r}"
        return f"what {self.node!r} ({name}) computes" if self.node else f"what {name} computes in the model's forward"


class _Rounding(_Operators):  # type: ignore[no-untyped-call]  # of torch
    def __init__(self, rounded: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        super().__init__()
        self.rounded = rounded

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rounded = self.rounded
        if rounded is None:
            return _in_order_of_index(func, args, kwargs)

        def state(value: Any) -> Any:
            return rounded(value) if isinstance(value, torch.Tensor) and id(value) in self.stored else value

        if not _writes(func):
            args, kwargs = pytree.tree_map(state, (args, kwargs))
        result = _in_order_of_index(func, args, kwargs)
        returns = func._schema.returns if isinstance(func, torch._ops.OpOverload) else ()
        if not any(value.alias_info is None for value in returns):
            if _writes(func):
                for value in output_tensors(result):
                    value.copy_(rounded(value))
            return result
        return pytree.tree_map(lambda v: rounded(v) if isinstance(v, torch.Tensor) else v, result)


class _Watching(_Operators):  # type: ignore[no-untyped-call]  # of torch
    """Finds the first operator with finite operands and a result that is not, or the first tensor that is not.

    Minus infinity alone is how masks are written; it counts if there is nothing else.
    """

    def __init__(self, originals: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.originals = originals
        self.left: OutOfRange | None = None
        self.masked: OutOfRange | None = None
        self._seen: set[str] = set()

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.left is not None:
            return func(*args, **kwargs)
        given = [v for v in output_tensors((args, kwargs)) if v.is_floating_point()]
        for tensor in given:
            name = self.stored.get(id(tensor))
            if name is not None and name not in self._seen:
                self._seen.add(name)
                self._look_at(name, tensor)
        whole = not any(_leaves(v) for v in given)
        result = func(*args, **kwargs)
        if whole and not _writes(func):
            computed = [v for v in output_tensors(result) if v.is_floating_point()]
            broken = next((v for v in computed if _leaves(v) or _vanishes(v, given)), None)
            if broken is not None:
                wide = pytree.tree_map(_widened, (args, kwargs))
                self._note(self.place(func), output_tensors(func(*wide[0], **wide[1])), broken)
        return result

    def _look_at(self, name: str, tensor: torch.Tensor) -> None:
        original = self.originals.get(name)
        if original is not None and original.shape == tensor.shape and (_leaves(tensor) or _vanishes(tensor, [])):
            kind = name if name.startswith("input ") else f"the tensor {name!r}"
            self._note(kind, [original], tensor)

    def _note(self, place: str, exact: list[torch.Tensor], broken: torch.Tensor) -> None:
        if self.masked is None and any(_leaves(v) for v in exact if v.is_floating_point()):
            self.masked = OutOfRange(place, None, broken.dtype)  # 0 / 0, for example, of what has become zero before
        finite = [v.abs()[v.isfinite()] for v in exact if v.is_floating_point()]
        largest = max((float(v.max()) for v in finite if v.numel()), default=0.0)
        limits = torch.finfo(broken.dtype)
        if limits.smallest_normal * limits.eps <= largest <= limits.max or largest == 0:
            return  # the same in float32
        found = OutOfRange(place, largest, broken.dtype)
        if bool((broken.isnan() | (broken == math.inf)).any()) or largest < 1:
            self.left = found
        elif self.masked is None:
            self.masked = found


def _leaves(x: torch.Tensor) -> bool:
    return not bool(x.isfinite().all())


def _vanishes(x: torch.Tensor, given: list[torch.Tensor]) -> bool:
    """Whether all of ``x`` is zero, made of what is not."""
    return x.numel() > 0 and not bool(x.any()) and all(bool(v.any()) for v in given if v.numel())


def _widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.float()
    return torch.float32 if value in (torch.float16, torch.bfloat16) else value


def _writes(func: Any) -> bool:
    return isinstance(func, torch._ops.OpOverload) and func._schema.is_mutable


def _in_order_of_index(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an operator; of equal values those of a lower index come first."""
    if func is aten.topk.default:
        settings: tuple[Any, ...] = (-1, True)
        x, k, dim, largest = args[:4] + settings[len(args) - 2 :]
        values, indices = aten.sort.stable(x, stable=True, dim=dim, descending=largest)
        return values.narrow(dim, 0, k).contiguous(), indices.narrow(dim, 0, k).contiguous()
    if func is aten.sort.default:
        settings = (-1, False)
        x, dim, descending = args + settings[len(args) - 1 :]
        return aten.sort.stable(x, stable=True, dim=dim, descending=descending)
    return func(*args, **kwargs)


class _Placed(nn.Module):
    """A model that tells where it is."""

    def __init__(self, model: nn.Module, operators: _Operators) -> None:
        super().__init__()
        self.model = model
        self.operators = operators

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        operators, model = self.operators, self.model
        state = (*model.named_parameters(), *model.named_buffers())
        operators.stored = {id(tensor): name for name, tensor in state}
        inputs = enumerate(output_tensors((args, kwargs)))
        operators.stored |= {id(tensor): f"input {index}" for index, tensor in inputs}
        handles = []
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda *_, path=path: operators.paths.append(path)))
            handles.append(module.register_forward_hook(lambda *_: (operators.paths.pop(), None)[1]))
        try:
            with operators:
                if not isinstance(model, fx.GraphModule):
                    return model(*args, **kwargs)
                walk = _NodeByNode(model, operators)
                return walk.run(*bind_inputs(model, args, kwargs), enable_io_processing=False)
        finally:
            for handle in handles:
                handle.remove()


class _NodeByNode(fx.Interpreter):
    def __init__(self, model: fx.GraphModule, operators: _Operators) -> None:
        super().__init__(model)
        self.operators = operators

    def run_node(self, n: fx.Node) -> Any:
        self.operators.node = n.name
        return super().run_node(n)


def _run(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], operators: _Operators) -> list[torch.Tensor]:
    return output_tensors(run_unchanged(_Placed(model, operators), args, kwargs))
