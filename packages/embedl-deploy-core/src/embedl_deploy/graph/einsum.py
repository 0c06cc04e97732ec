"""The equation of an ``einsum`` or another product of two tensors, sorted by what happens to each axis."""

from collections import Counter
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

from torch import fx

from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.signatures import bind_call


@dataclass(frozen=True)
class Equation:
    """A product of two tensors, an axis a letter; no tensor has a letter twice.

    Attributes:
        left: The axes of the first tensor.
        right: Those of the second.
        result: Those of the result.
    """

    left: str
    right: str
    result: str

    @property
    def batch(self) -> str:
        """Axes of all three, in the order of the result."""
        return "".join(axis for axis in self.result if axis in self.left and axis in self.right)

    @property
    def rows(self) -> str:
        """Axes of the first tensor and the result."""
        return "".join(axis for axis in self.result if axis not in self.right)

    @property
    def columns(self) -> str:
        """Axes of the second tensor and the result."""
        return "".join(axis for axis in self.result if axis not in self.left)

    @property
    def summed(self) -> str:
        """Axes of both tensors that are summed over."""
        return "".join(axis for axis in self.left if axis in self.right and axis not in self.result)

    def __str__(self) -> str:
        return f"{self.left},{self.right}->{self.result}"


def operands_of_einsum(node: fx.Node) -> tuple[fx.Node, ...]:
    """The tensors of an ``einsum``; empty if they are not values of the graph."""
    operands = node.args[1] if len(node.args) == 2 and isinstance(node.args[1], (list, tuple)) else node.args[1:]
    found = tuple(operand for operand in operands if isinstance(operand, fx.Node))
    return found if len(found) == len(operands) else ()


def equation_of(node: fx.Node) -> Equation | None:
    """The equation of a call of ``einsum`` with two tensors of known rank; ``None`` of any other node.

    Also ``None`` where an axis is summed over that only one tensor has, is broadcast, or stands for a diagonal.
    """
    if operation(node) != "einsum" or not node.args or not isinstance(node.args[0], str) or node.kwargs:
        return None
    shapes = [shape_of(operand) for operand in operands_of_einsum(node)]
    known = [shape for shape in shapes if shape is not None]
    if len(known) != 2 or len(shapes) != 2:
        return None
    equation = _written_out(node.args[0].replace(" ", ""), [len(shape) for shape in known])
    return None if equation is None or _broadcasts(equation, *known) else equation


def equation_of_axes(left: tuple[int, ...], right: tuple[int, ...], dims: Any) -> Equation | None:
    """The equation of ``torch.tensordot`` of two tensors.

    Args:
        left: The shape of the first.
        right: The shape of the second.
        dims: Which axes of each are summed, in pairs, or how many: the last of the first, the first of the second.

    Returns:
        The equation; ``None`` if the axes are not known, or of other sizes.
    """
    if isinstance(dims, int):
        dims = (range(len(left) - dims, len(left)), range(dims))
    if not isinstance(dims, (list, tuple)) or len(dims) != 2 or len(dims[0]) != len(dims[1]):
        return None
    if not all(isinstance(dim, int) for part in dims for dim in part):
        return None
    first, second = ([dim % len(shape) for dim in part] for part, shape in zip(dims, (left, right), strict=True))
    if [left[dim] for dim in first] != [right[dim] for dim in second] or len(left) + len(right) > len(ascii_letters):
        return None
    names, others = ascii_letters[: len(left)], iter(ascii_letters[len(left) :])
    summed = dict(zip(second, (names[dim] for dim in first), strict=True))
    of_right = [summed.get(dim) or next(others) for dim in range(len(right))]
    kept = [name for dim, name in enumerate(names) if dim not in first]
    kept += [name for dim, name in enumerate(of_right) if dim not in summed]
    return Equation(names, "".join(of_right), "".join(kept))


def product_by_axes(node: fx.Node) -> tuple[fx.Node, fx.Node, Equation] | None:
    """The two tensors of a call that says which of their axes are summed, and its equation.

    Returns:
        The tensors and the equation; ``None`` for other calls than ``einsum``, ``inner`` and ``tensordot``, and where
        their shapes are not known.
    """
    name = operation(node)
    if name == "einsum":
        found, operands = equation_of(node), operands_of_einsum(node)
        return None if found is None else (operands[0], operands[1], found)
    bound = bind_call(node) if name in ("inner", "tensordot") else None
    values = {} if bound is None else dict(bound.values)
    left, right = (*values.values(), None, None)[:2]
    if values.get("out") is not None or not isinstance(left, fx.Node) or not isinstance(right, fx.Node):
        return None
    shapes = shape_of(left), shape_of(right)
    if shapes[0] is None or shapes[1] is None:
        return None
    dims: Any = ([-1], [-1])
    if name == "tensordot":  # the function has one parameter, the operator two
        dims = values.get("dims", (values.get("dims_self"), values.get("dims_other")))
    equation = equation_of_axes(shapes[0], shapes[1], dims)
    return None if equation is None else (left, right, equation)


def _written_out(text: str, ranks: list[int]) -> Equation | None:
    inputs, arrow, result = text.partition("->")
    terms = inputs.split(",")
    if len(terms) != 2:
        return None
    unnamed = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    if any(count < 0 or (count and "..." not in term) for term, count in zip(terms, unnamed, strict=True)):
        return None
    names = "".join([letter for letter in ascii_letters if letter not in text][: max(unnamed)])
    if not arrow:
        times = Counter(inputs.replace(",", "").replace(".", ""))
        result = "..." + "".join(sorted(letter for letter, count in times.items() if count == 1))
    left, right = (term.replace("...", names[len(names) - count :]) for term, count in zip(terms, unnamed, strict=True))
    equation = Equation(left, right, result.replace("...", names))
    sides = (left, right, equation.result)
    distinct = all(len(set(side)) == len(side) for side in sides)
    alone, all_axes, kept = set(left) ^ set(right), set(left) | set(right), set(equation.result)
    return equation if distinct and alone <= kept <= all_axes else None


def _broadcasts(equation: Equation, left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    """Whether an axis of both tensors is of size one in only one of them."""
    sizes = dict(zip(equation.left, left, strict=True)), dict(zip(equation.right, right, strict=True))
    return any(sizes[0][axis] != sizes[1][axis] for axis in sizes[0].keys() & sizes[1].keys())
