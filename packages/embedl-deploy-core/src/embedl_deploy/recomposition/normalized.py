"""Finds tensors divided by the root of their own mean square or variance.

A square root is followed back to the mean square or variance under it, and on to the tensor that is divided by it:

    rsqrt(mean(x²) + ε) · x        (x − mean(x)) / sqrt(var(x) + ε)
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from embedl_deploy.graph.casts import is_cast
from embedl_deploy.graph.metadata import dtype_of
from embedl_deploy.graph.operators import is_in_place, operation
from embedl_deploy.recomposition.statistics import Axes, NoNormError, Spread, deviation_of, mean_square_of, variance_of
from embedl_deploy.recomposition.written_numbers import number_of

_ROOTS = frozenset({"sqrt", "rsqrt", "pow"})


@dataclass(frozen=True)
class Normalized:
    """x/√(mean(x²) + ε) or, of x with its mean taken off, the same.

    Attributes:
        spread: x.
        axes: The axes of the mean, counted from the last if the shape is known.
        eps: ε.
        nodes: What computes it, in graph order; the last is its value.
    """

    spread: Spread
    axes: Axes
    eps: float
    nodes: tuple[fx.Node, ...]

    @property
    def centred(self) -> bool:
        """Whether the mean is taken off."""
        return self.spread.axes is not None


def normalized_by(root: fx.Node) -> Normalized | None:
    """What is normalized by a square root; ``None`` if it is not of a mean square.

    Raises:
        NoNormError: It is, and something about it is done in another way than layers do it.
    """
    power = _power_of(root)
    under = None if power is None else _shifted(root.args[0])
    if under is None or power is None:
        return None
    mean_square, eps, shift = under
    variance = variance_of(mean_square) or mean_square_of(mean_square)
    if variance is None:
        return None
    spread, axes, statistics = variance
    if axes is None or not statistics:
        raise NoNormError(f"{mean_square.name} does not keep the axes that it is over")
    divided = _divided_by(root, power)
    if divided is None:
        return None
    value, quotient = divided
    found = deviation_of(value)
    if spread.axes not in (None, axes):  # it is another mean that is taken off, and a tensor like any other
        if value is not spread.nodes[-1]:
            return None
        spread = found = Spread(value)
    if found.source is not spread.source or found.axes != spread.axes:
        if spread.axes is not None and found.source is spread.source:
            raise NoNormError(f"{value.name}, which is divided by its standard deviation, has its mean")
        return None
    both = _of_both(spread, found)
    nodes = {root, shift, *statistics, *spread.nodes, *found.nodes, *quotient}
    return _without_shared_cast(Normalized(both, axes, eps, tuple(sorted(nodes))))


def _power_of(root: fx.Node) -> float | None:
    """0.5 for a square root, -0.5 for one divided by it; ``None`` for what is neither."""
    name = operation(root)
    if name not in _ROOTS or is_in_place(root) or not root.args:
        return None
    if name == "pow":
        exponent = number_of(root.args[1]) if len(root.args) > 1 else None
        return exponent if exponent in (0.5, -0.5) else None
    return 0.5 if name == "sqrt" else -0.5


def _shifted(node: Any) -> tuple[fx.Node, float, fx.Node] | None:
    """v, ε and the node of v + ε."""
    if not isinstance(node, fx.Node) or operation(node) != "add" or is_in_place(node) or len(node.args) < 2:
        return None
    for value, number in (node.args[:2], node.args[1::-1]):
        eps = number_of(number)
        if isinstance(value, fx.Node) and eps is not None and eps >= 0:
            return value, eps, node
    return None


def _divided_by(root: fx.Node, power: float) -> tuple[fx.Node, list[fx.Node]] | None:
    """What is divided by a square root, and the nodes that divide."""
    nodes: list[fx.Node] = []
    inverse = root
    if power > 0:
        users = list(root.users)
        if len(users) == 1 and _is_inverse(users[0], root):
            inverse = users[0]
            nodes.append(inverse)
            once_more = next(iter(inverse.users), inverse)
            if operation(once_more) == "mul" and 1 in once_more.args:  # as torch computes 1/x
                inverse = once_more
                nodes.append(inverse)
    wanted = "div" if power > 0 and inverse is root else "mul"
    for user in inverse.users:
        if operation(user) != wanted or is_in_place(user) or len(user.args) != 2 or user.kwargs:
            continue
        first, second = user.args
        value = first if second is inverse else second if wanted == "mul" else None
        if isinstance(value, fx.Node) and value is not inverse:
            return value, [*nodes, user]
    return None


def _is_inverse(node: fx.Node, root: fx.Node) -> bool:
    """Whether a node is 1 divided by ``root``."""
    name = operation(node)
    if name == "reciprocal":
        return True
    if name == "div" and not node.kwargs and len(node.args) == 2:
        return number_of(node.args[0]) == 1 and node.args[1] is root
    return name == "pow" and len(node.args) == 2 and node.args[0] is root and number_of(node.args[1]) == -1


def _of_both(spread: Spread, found: Spread) -> Spread:
    """The tensor whose spread is taken and the one that is divided, which are of one source, as one.

    Raises:
        NoNormError: They are of several types.
    """
    nodes = tuple(dict.fromkeys((*spread.nodes, *found.nodes)))
    if spread.upcast is found.upcast:
        return replace(found, nodes=nodes)
    source = dtype_of(found.source)
    wide = spread.upcast if found.upcast is None else None
    if wide is None or source is None or torch.promote_types(source, wide) is not wide:
        raise NoNormError(f"{found.source.name} is normalized by the spread of a tensor of another type")
    return replace(found, upcast=wide, nodes=nodes)  # dividing by it converts


def _without_shared_cast(norm: Normalized) -> Normalized:
    """The norm of the converted tensor, if something else reads that, too."""
    casts = [node for node in norm.spread.nodes if is_cast(node)]
    if len(casts) != 1 or set(norm.nodes).issuperset(casts[0].users):
        return norm
    nodes = tuple(node for node in norm.nodes if node is not casts[0])
    direct = all(casts[0] in node.all_input_nodes or norm.spread.source not in node.all_input_nodes for node in nodes)
    if not direct:
        return norm
    return replace(norm, spread=replace(norm.spread, source=casts[0], upcast=None), nodes=nodes)
