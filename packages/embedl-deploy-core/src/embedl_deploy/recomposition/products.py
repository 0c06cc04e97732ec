"""Finds the two matrix products of attention, however they are written.

What is read of a product is which tensor is what, and how its axes have to be moved so that the product is
``query @ key.transpose(-2, -1)``, or ``weights @ value``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx
from torch.fx.passes.shape_prop import _extract_tensor_metadata

from embedl_deploy.graph.einsum import equation_of, operands_of_einsum
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.signatures import bind_call

_PLAIN = frozenset({"matmul", "bmm"})


@dataclass(frozen=True)
class Operand:
    """A tensor of the graph with its axes in another order.

    Attributes:
        node: The tensor.
        order: For each axis of the result, which one of the tensor's it is; ``None`` if they stay.
    """

    node: fx.Node
    order: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the new order; only asked for where it is known."""
        shape = shape_of(self.node)
        assert shape is not None
        return shape if self.order is None else tuple(shape[axis] for axis in self.order)

    def swapped(self) -> "Operand":
        """With the last two axes swapped; what is a swap of something is that."""
        if self.order is not None:
            return replace(self, order=(*self.order[:-2], self.order[-1], self.order[-2]))
        source = swapped_source(self.node)
        if source is not None:
            return Operand(source)
        axes = tuple(range(len(self.shape)))
        return Operand(self.node, (*axes[:-2], axes[-1], axes[-2]))

    def inserted(self) -> fx.Node:
        """A node with the value, made at the graph's point of insertion if there is none."""
        if self.order is None or self.order == tuple(range(len(self.order))):
            return self.node
        return insert(self.node.graph, "permute", self.node, self.order)


@dataclass(frozen=True)
class Product:
    """A product of two tensors, beside which something may be added.

    Attributes:
        node: The product.
        left: (..., M, K).
        right: (..., K, N).
        order: How the axes of (..., M, N) are moved in the result; ``None`` if they stay.
        added: What is added to it, and a factor of that.
        factor: What the product is multiplied with.
    """

    node: fx.Node
    left: Operand
    right: Operand
    order: tuple[int, ...] | None = None
    added: tuple[fx.Node, float] | None = None
    factor: float = 1.0


def insert(graph: fx.Graph, method: str, *args: Any) -> fx.Node:
    """Call a method of tensors at the graph's point of insertion, and note the shape of what it gives, if known."""
    node = graph.call_method(method, args)
    if all(shape_of(arg) is not None for arg in node.all_input_nodes):
        stand_ins = fx.map_arg(args, lambda each: torch.empty(shape_of(each), dtype=dtype_of(each), device="meta"))  # type: ignore[arg-type]  # known
        node.meta["tensor_meta"] = _extract_tensor_metadata(getattr(stand_ins[0], method)(*stand_ins[1:]))
    return node


def swapped_source(node: fx.Node) -> fx.Node | None:
    """The tensor of which ``node`` is the one with its last two axes swapped, if it is one."""
    shape, name = shape_of(node), operation(node)
    if shape is None or len(shape) < 2 or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    source, rank = node.args[0], len(shape)
    if name in ("mT", "t", "adjoint"):
        return source if name != "t" or rank == 2 else None
    if name == "getattr" or node.target is getattr:
        return source if node.args[1] == "mT" or (node.args[1] == "T" and rank == 2) else None
    given = [axis for value in node.args[1:] for axis in (value if isinstance(value, (list, tuple)) else [value])]
    axes = [axis % rank for axis in given if isinstance(axis, int)]
    if node.kwargs or len(axes) != len(given):
        return None
    if name == "transpose":
        return source if sorted(axes) == [rank - 2, rank - 1] else None
    if name == "permute":
        return source if axes == [*range(rank - 2), rank - 1, rank - 2] else None
    return None


def product_of(node: fx.Node) -> Product | None:
    """What a node multiplies, if it is a product of two batches of matrices of known shapes."""
    name = operation(node)
    if name in _PLAIN:
        bound = bind_call(node)
        pair = [node.args[0], node.args[1]] if len(node.args) == 2 else list(bound.values.values())[:2] if bound else []
        return _plain(node, pair)
    if name == "baddbmm":
        return _with_sum(node)
    return _of_einsum(node) if name == "einsum" else None


def _plain(node: fx.Node, pair: list[Any]) -> Product | None:
    if len(pair) != 2 or not all(isinstance(each, fx.Node) for each in pair):
        return None
    shapes = [shape_of(each) for each in pair]
    if any(shape is None or len(shape) < 2 for shape in shapes):
        return None
    return Product(node, Operand(pair[0]), Operand(pair[1]))


def _with_sum(node: fx.Node) -> Product | None:
    """beta·input + alpha·(batch1 @ batch2)."""
    bound = bind_call(node)
    values = {} if bound is None else bound.values
    product = _plain(node, [values.get("batch1"), values.get("batch2")])
    beta, alpha, added = values.get("beta"), values.get("alpha"), values.get("input")
    if product is None or not isinstance(alpha, (int, float)) or not isinstance(beta, (int, float)):
        return None
    if not isinstance(added, fx.Node):
        return None
    return replace(product, factor=float(alpha), added=(added, float(beta)) if beta else None)


def _of_einsum(node: fx.Node) -> Product | None:
    """A product that an equation of two operands says: one axis summed, one of each operand alone, the rest shared."""
    equation = equation_of(node)
    if equation is None or not len(equation.summed) == len(equation.rows) == len(equation.columns) == 1:
        return None
    batch, rows, columns, summed = equation.batch, equation.rows, equation.columns, equation.summed
    left, right = operands_of_einsum(node)
    matrices = (
        Operand(left, tuple(map(equation.left.index, batch + rows + summed))),
        Operand(right, tuple(map(equation.right.index, batch + summed + columns))),
    )
    order = tuple(map((batch + rows + columns).index, equation.result))
    return Product(node, *matrices, None if order == tuple(range(len(order))) else order)


def orientations(product: Product) -> Iterator[Product]:
    """A product, and the same seen from the other side: (a·b)ᵀ = bᵀ·aᵀ."""
    yield product
    axes = tuple(range(len(shape_of(product.node) or product.order or ())))
    swap = (*axes[:-2], *reversed(axes[-2:]))
    order = tuple(swap[axis] for axis in product.order or axes)
    turned = None if order == axes else order
    yield replace(product, left=product.right.swapped(), right=product.left.swapped(), order=turned)
