"""Watches a float32 run for values that float16 cannot hold."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from embedl_deploy.export.constants import mask_value
from embedl_deploy.export.operands import name_of
from embedl_deploy.export.operators import Operators, compute, writes
from embedl_deploy.export.out_of_range import LEAST_OF_ONE_OPERATOR_DB
from embedl_deploy.float16.report import Float16Limit
from embedl_deploy.verify import output_tensors, signal_to_noise

_HALF = torch.float16
_LARGEST = torch.finfo(_HALF).max
#: Operators that add up what they are given; hardware may do so in the type of the result.
_SUMS = frozenset({"sum", "mean", "var", "var_mean", "std", "std_mean", "cumsum", "linalg_vector_norm", "norm"})
#: Operators that give statistics, for a backward pass, beside their result.
_WITH_STATISTICS = frozenset(
    {"native_layer_norm", "native_batch_norm", "native_group_norm", "_native_batch_norm_legit", "_fused_rms_norm"}
)
#: Results that are made by rounding on purpose, or that say nothing of rounding.
_STEPS = frozenset({"fake_quantize", "dequantize", "round", "floor", "ceil", "trunc", "sign", "frac", "remainder"})


@dataclass(frozen=True)
class Excess:
    """What a node does that float16 does not.

    Attributes:
        limit: Which limit of float16 it is.
        operator: The operator within the node.
        value: See :class:`Float32Node`.
    """

    limit: Float16Limit
    operator: str
    value: float

    def is_worse_than(self, other: "Excess | None") -> bool:
        """Whether this one is to be told instead of another of the same node."""
        if other is None or self.limit is not other.limit:
            return other is None or list(Float16Limit).index(self.limit) < list(Float16Limit).index(other.limit)
        return self.value < other.value if self.limit is Float16Limit.STEP else self.value > other.value


class Watching(Operators):  # type: ignore[no-untyped-call]  # of torch
    """Computes operators in the model's own type, and notes of each node what float16 does not hold.

    Attributes:
        found: By node, the worst of what it does.
        outgrown: Nodes whose own value float16 does not hold.
        written: Nodes that write to values of others, with those whose memory they write to.
        infinite: Nodes that compute infinities or NaN in float32, too, as masks are made of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[fx.Node, Excess] = {}
        self.outgrown: set[fx.Node] = set()
        self.infinite: set[fx.Node] = set()
        self.written: dict[fx.Node, set[fx.Node]] = {}
        self._memory: dict[fx.Node, set[int]] = {}

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute an operator, and look at its result."""
        result = compute(func, args, kwargs)
        if self.node is not None:
            if writes(func):
                to = _memory_of(result)
                others = {node for node, memory in self._memory.items() if memory & to and node is not self.node}
                self.written.setdefault(self.node, set()).update(others)
            if not all_finite(result):
                self.infinite.add(self.node)
            for excess in _excesses(func, args, kwargs, result):
                self._note(self.node, excess)
        return result

    def computed(self, node: fx.Node, value: Any) -> None:
        """Look at the value of a node: inputs and parameters are computed by no operator."""
        self._memory[node] = _memory_of(value)
        with _disable_current_modes():
            largest = max((_largest(x) for x in output_tensors(value) if _counts(x)), default=0.0)
        if largest > _LARGEST and node.op != "output":
            self.outgrown.add(node)
            self._note(node, Excess(Float16Limit.LARGEST, node.name, largest))

    def _note(self, node: fx.Node, excess: Excess) -> None:
        if excess.is_worse_than(self.found.get(node)):
            self.found[node] = excess


def _excesses(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Iterator[Excess]:
    """What float16 does not hold of one operator's work."""
    name = name_of(func)
    computed = [x for x in values_of(name, result) if _counts(x)]
    if not computed:
        return
    largest = max(map(_largest, computed))
    if largest > _LARGEST:
        yield Excess(Float16Limit.LARGEST, name, largest)
    if largest > _LARGEST or writes(func):
        return
    if name in _SUMS and isinstance(args[0], torch.Tensor) and args[0].is_floating_point():
        total = _largest_sum(func, args, kwargs)
        if total > _LARGEST:
            yield Excess(Float16Limit.SUM, name, total)
    if name in _STEPS:
        return
    rounded = pytree.tree_map(round_to_half, (args, kwargs))
    if all_finite(rounded) < all_finite((args, kwargs)):
        yield Excess(Float16Limit.NEIGHBOUR, name, 0.0)
        return
    exact = [round_to_half(x) for x in values_of(name, compute(func, *rounded)) if _counts(x)]
    kept = signal_to_noise(computed, exact)
    if kept < LEAST_OF_ONE_OPERATOR_DB:
        yield Excess(Float16Limit.STEP, name, kept)


def _memory_of(value: Any) -> set[int]:
    """Addresses of the memory that tensors are in; of what is empty there is none."""
    return {x.untyped_storage().data_ptr() for x in output_tensors(value)} - {0}


def values_of(name: str, result: Any) -> list[torch.Tensor]:
    """What an operator gives, without the statistics that some give for a backward pass."""
    tensors = output_tensors(result)
    return tensors[:1] if name in _WITH_STATISTICS else tensors


def all_finite(values: Any) -> bool:
    """Whether no tensor in some values holds infinity or NaN."""
    return all(bool(x.isfinite().all()) for x in output_tensors(values) if x.is_floating_point())


def _counts(x: torch.Tensor) -> bool:
    return x.is_floating_point() and bool(x.numel())


def _largest(x: torch.Tensor) -> float:
    """The largest finite magnitude, without the number that a mask is written with."""
    x = x.detach()
    low, high = (float(value) for value in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)) or max(-low, high) > _LARGEST:
        x = x[x.isfinite()]
        masked = mask_value(x, _HALF)
        x = x if masked is None else x[x != masked]
        return float(x.abs().max()) if x.numel() else 0.0
    return max(-low, high)


def _largest_sum(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """The largest sum of magnitudes that an operator adds up: what is averaged is added up first."""
    x = args[0].detach().abs()
    power = 2 if name_of(func) in ("var", "var_mean", "std", "std_mean", "linalg_vector_norm", "norm") else 1
    dims = next((value for value in (*args[1:], kwargs.get("dim")) if isinstance(value, (int, list, tuple))), None)
    if isinstance(dims, bool):
        dims = None
    return float((x**power).sum(dim=dims).max()) if dims not in (None, [], ()) else float((x**power).sum())


def round_to_half(value: Any) -> Any:
    """A tensor in float32 or float64 rounded to float16 and back; what masks are written with stays finite."""
    if not isinstance(value, torch.Tensor) or value.dtype not in (torch.float32, torch.float64):
        return value
    masked = mask_value(value, _HALF)
    rounded = value.to(_HALF).to(value.dtype)
    return rounded if masked is None else torch.where(value == masked, -_LARGEST, rounded)
