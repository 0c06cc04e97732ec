"""What a norm that is written out is made of: what is normalized, and the weight and bias that follow."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.casts import is_cast
from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.lookup import get_constant
from embedl_deploy.graph.memo import remembered
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import is_in_place, operation
from embedl_deploy.graph.state_values import is_state, made_from, value_of_state
from embedl_deploy.modules.norms import LayerNorm2d, RMSNorm2d, RoundsTo, WrittenLayerNorm, WrittenRMSNorm
from embedl_deploy.recomposition.normalized import Normalized, normalized_by
from embedl_deploy.recomposition.statistics import NoNormError


@dataclass(frozen=True)
class Norm:
    """A norm as it stands in a graph.

    Attributes:
        normalized: What is normalized, and how.
        nodes: All of its calls, in graph order; the last gives its value.
        shape: The sizes of the normalized axes; ``None`` as long as they are not known.
        over_channels: Whether the axis is that of the channels, and not the last.
        weight: What the normalized tensor is multiplied with, of ``shape``, or of that with ones around it.
        bias: What is added to it.
        rounds_to: The type that it is converted to before, if it has been converted.
    """

    normalized: Normalized
    nodes: tuple[fx.Node, ...]
    shape: tuple[int, ...] | None
    over_channels: bool
    weight: fx.Node | None = None
    bias: fx.Node | None = None
    rounds_to: RoundsTo | None = None

    @property
    def state(self) -> list[fx.Node]:
        """What weight and bias are computed from, themselves included, in graph order."""
        return sorted({each for tensor in (self.weight, self.bias) if tensor is not None for each in made_from(tensor)})

    def module(self) -> nn.Module:
        """The module, without weight and bias."""
        assert self.shape is not None  # it has been read
        if self.over_channels:
            over_channels = LayerNorm2d if self.normalized.centred else RMSNorm2d
            return over_channels(self.shape[0], self.normalized.eps, elementwise_affine=False)
        kind = WrittenLayerNorm if self.normalized.centred else WrittenRMSNorm
        return kind(self.shape, self.normalized.eps, upcast=self.normalized.spread.upcast, rounds_to=self.rounds_to)


def read_norm(root: fx.Node) -> Norm | None:
    """The norm that a square root is part of.

    Raises:
        NoNormError: It is one that no module computes.
    """
    normalized = normalized_by(root)
    if normalized is None:
        return None
    rank, axes = _rank(normalized.nodes[-1]), normalized.axes
    if rank is None and any(axis >= 0 for axis in axes):
        raise NoNormError("the number of axes is not known: give example inputs")
    trailing = axes == tuple(range(-len(axes), 0))
    if not trailing and (rank is None or rank < 3 or axes != (1 - rank,)):
        raise NoNormError(f"it is over the axes {axes}, which are neither the last nor the channels")
    if not trailing and normalized.spread.upcast is not None:
        normalized = _of_converted(normalized)
    norm = _with_affine(Norm(normalized, normalized.nodes, _sizes(normalized), over_channels=not trailing))
    if not norm.shape or (norm.weight is None and len(axes) > 1):
        raise NoNormError("the sizes of its axes are not known, or may change")
    return norm


def _rank(node: fx.Node) -> int | None:
    shape = shape_of(node)
    return None if shape is None else len(shape)


def _of_converted(normalized: Normalized) -> Normalized:
    """The norm of a tensor that is converted first, without the conversion."""
    spread = normalized.spread
    casts = [node for node in spread.nodes if is_cast(node)]
    if len(casts) != 1:
        raise NoNormError(f"{spread.source.name} is normalized over its channels in another type")
    nodes = tuple(node for node in normalized.nodes if node is not casts[0])
    return replace(normalized, spread=replace(spread, source=casts[0], upcast=None), nodes=nodes)


def _operand_of(node: fx.Node, name: str, value: fx.Node) -> fx.Node | None:
    """The other operand of a product or sum, if it is made of parameters alone."""
    if operation(node) != name or is_in_place(node) or len(node.args) != 2 or node.kwargs:
        return None
    other = node.args[1] if node.args[0] is value else node.args[0]
    return other if isinstance(other, fx.Node) and other is not value and is_state(other) else None


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _sizes(normalized: Normalized) -> tuple[int, ...] | None:
    """The sizes of the normalized axes, if they are known and the same in every call."""
    value = normalized.nodes[-1]
    exported, shape = value.meta.get("val"), shape_of(value)
    if isinstance(exported, torch.Tensor):
        sizes = [exported.shape[axis] for axis in normalized.axes]
        return tuple(sizes) if all(isinstance(size, int) for size in sizes) else None
    return None if shape is None else tuple(shape[axis] for axis in normalized.axes)


def _sizes_of(tensor: fx.Node, norm: Norm) -> tuple[int, ...] | None:
    """The sizes of the normalized axes, as a weight or bias has them that has one value for each of their positions."""
    value = value_of_state(tensor)
    if not isinstance(value, torch.Tensor) or _is_written(tensor):
        return None
    axes = norm.normalized.axes
    behind = -axes[0] - len(axes)  # after channels there are others
    wanted = None if norm.shape is None else (*norm.shape, *(1,) * behind)
    sizes = tuple(value.shape)
    while len(sizes) > -axes[0] and sizes[0] == 1:
        sizes = sizes[1:]
    fits = sizes == wanted if wanted is not None else len(sizes) == len(axes) and 1 not in sizes
    return sizes[: len(axes)] if fits else None


def _with_affine(norm: Norm) -> Norm:
    """The norm with the weight and bias that follow."""
    norm = _with_weight(norm)
    user = _only_user(norm.nodes[-1])
    if norm.weight is None or user is None or not norm.normalized.centred:
        return norm
    bias = _operand_of(user, "add", norm.nodes[-1])
    if bias is None or _sizes_of(bias, norm) is None:
        return norm
    return replace(norm, bias=bias, nodes=(*norm.nodes, user))


def _with_weight(norm: Norm) -> Norm:
    """The norm with what it is multiplied with, and converted to before."""
    value = norm.nodes[-1]
    user = _only_user(value)
    casts: tuple[fx.Node, ...] = ()
    if user is not None and is_cast(user) and norm.normalized.spread.upcast is not None:
        casts = (user,)
        value, user = user, _only_user(user)
    weight = None if user is None else _operand_of(user, "mul", value)
    sizes = None if weight is None else _sizes_of(weight, norm)
    if sizes is None:
        weight = user = None
    rounds_to = _rounded_to(casts[0], norm.normalized, weight) if casts else None
    if casts and rounds_to is None:
        return norm
    weighted = () if user is None else (user,)
    return replace(
        norm, weight=weight, shape=sizes or norm.shape, rounds_to=rounds_to, nodes=(*norm.nodes, *casts, *weighted)
    )


def _is_written(tensor: fx.Node) -> bool:
    """Whether the graph writes to what a weight is made of."""
    effects = remembered(Effects, tensor.graph)
    return any(next(iter(effects.written_after(each)), None) is not None for each in made_from(tensor))


def _rounded_to(cast: fx.Node, normalized: Normalized, weight: fx.Node | None) -> RoundsTo | None:
    """Whose type a normalized tensor is converted to: that of the input, or of a weight, which is the model's."""
    given = [*cast.args[1:], *cast.kwargs.values()]
    targets = [value for value in given if isinstance(value, (fx.Node, torch.dtype))]
    if len(targets) != 1 or any(value not in (None, False) for value in given if value is not targets[0]):
        return None
    target: Any = targets[0]
    if isinstance(target, torch.dtype):
        return None
    like = target.args[0] if _is_dtype(target) else target if dtype_of(target) is not None else None
    if like is normalized.spread.source:
        return "input"
    is_plain = weight is not None and weight.op == "get_attr" and isinstance(get_constant(weight), torch.Tensor)
    if not is_plain or weight is None or not isinstance(like, fx.Node):
        return None
    return "weight" if like is weight or _is_model_type(like) else None


def _is_model_type(node: fx.Node) -> bool:
    """Whether a node stands for the number that a capture has put there for the model's type."""
    value = get_constant(node) if node.op == "get_attr" and "." not in str(node.target) else None
    return isinstance(value, torch.Tensor) and value.dim() == 0 and not isinstance(value, nn.Parameter)


def _is_dtype(node: fx.Node) -> bool:
    return node.target is getattr and len(node.args) == 2 and node.args[1] == "dtype"
