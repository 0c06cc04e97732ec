"""Checks that the inputs of an exported graph have the structure, ranks, types and constants that it was made for.

A graph from ``torch.export`` is valid for one structure of inputs: the length of a list, the keys of a dictionary,
whether there is a mask. Its code takes what it needs and ignores the rest, so a longer list, another key, or a mask
instead of ``None`` would be ignored silently. Nor would the graph take the model's other branch for a tensor of another
rank, or for a mask of booleans instead of numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.errors import InputError
from embedl_deploy.graph.fixed_inputs import missing_input
from embedl_deploy.validation.quoting import quoted

#: ``graph_module.meta`` entry of an :class:`ExportedInputs`.
EXPORTED_INPUTS = "embedl_deploy_exported_inputs"

_PLAIN = (bool, int, float, str, type(None))
_HOW = "captured by torch.export with an example of it"


@dataclass(frozen=True)
class ExportedInputs:
    """What an exported graph was made for.

    Attributes:
        names: The inputs of its forward, in order.
        positional: How many of them the model took by position.
        structure: Of all: a tuple of the positional ones, and a dictionary.
        constants: For each value in them, in a tuple, what it was if that was no tensor.
        tensors: For each value in them, its rank and type, if it was one.
        not_one: For each value in them, the dimensions that must not be one: the model takes another branch then.
    """

    names: tuple[str, ...]
    positional: int
    structure: pytree.TreeSpec
    constants: tuple[tuple[Any, ...], ...]
    tensors: tuple[tuple[int, torch.dtype] | None, ...]
    not_one: tuple[tuple[int, ...], ...] = ()

    @staticmethod
    def of(graph_module: fx.GraphModule) -> "ExportedInputs | None":
        """Those of a graph that ``torch.export`` made; ``None`` if its inputs are not nested as it makes them."""
        codegen = graph_module.graph._codegen
        if not isinstance(codegen, fx.graph._PyTreeCodeGen):
            return None
        structure = codegen.pytree_info.in_spec
        parts = structure.children()
        if structure.type is not tuple or len(parts) != 2 or parts[1].type is not dict:
            return None
        values = [node.meta.get("val", ...) for node in graph_module.graph.find_nodes(op="placeholder")]
        constants = tuple((value,) if type(value) in _PLAIN else () for value in values)
        names = tuple(name for name in codegen.pytree_info.orig_args if name != "self")
        tensors = tuple((v.dim(), v.dtype) if isinstance(v, torch.Tensor) else None for v in values)
        return ExportedInputs(names, parts[0].num_children, structure, constants, tensors)

    def refusing_ones(self, dimensions: Sequence[Sequence[int]]) -> "ExportedInputs":
        """The same, and further dimensions of each value that must not be one."""
        before = self.not_one or ((),) * len(dimensions)
        return replace(self, not_one=tuple((*a, *b) for a, b in zip(before, dimensions, strict=True)))

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Go on only with inputs that the graph was made for. Those that it does not know are left to Python.

        Raises:
            InputError: One is missing, has another structure, rank or kind of type, or is not the number, text or
                ``None`` that it was. Floating-point types may change, as the model's own may.
        """
        given = {**dict(zip(self.names, args, strict=False)), **kwargs}
        for name in self.names:
            if name not in given:
                raise InputError(missing_input(name, is_given=False, how=_HOW))
        if given.keys() != set(self.names) or len(args) > len(self.names):
            return
        parts = [child for part in self.structure.children() for child in part.children()]
        flat: list[tuple[str, Any]] = []
        for name, part in zip(self.names, parts, strict=True):
            try:
                flat += [(name, value) for value in _flattened(given[name], part)]
            except _OtherStructureError as error:
                raise InputError(
                    f"input {name!r} is {quoted(given[name])}, but the model was captured by torch.export with "
                    f"{error}, and a graph accepts only one structure of inputs. Transform the model again with an "
                    "example of this structure."
                ) from None
        for constant, tensor, (name, value) in zip(self.constants, self.tensors, flat, strict=False):
            if not constant and value is None:
                raise InputError(missing_input(name, is_given=True, how=_HOW))
            if tensor is not None and not _is_like(value, *tensor):
                raise InputError(
                    f"input {name!r} is or contains {quoted(value)}, but the model was captured by torch.export with a "
                    f"tensor of {tensor[0]} dimensions and type {str(tensor[1]).removeprefix('torch.')} there. For "
                    "another rank or type the model may compute something else: transform it again with an example "
                    "of this one."
                )
            if constant and not (type(value) is type(constant[0]) and value == constant[0]):
                raise InputError(
                    f"input {name!r} is or contains {quoted(value)}, but the model was captured by torch.export with "
                    f"{constant[0]!r} there, and its graph is fixed to that value. Transform the model again with an "
                    "example of this one."
                )
        for ones, (name, value) in zip(self.not_one, flat, strict=False):
            wrong = [at for at in ones if value.shape[at] == 1]
            if wrong:
                raise InputError(
                    f"input {name!r} is or contains {quoted(value)}, but the graph that torch.export captured is valid "
                    f"only where dimension {wrong[0]} is two or more: the model computes something else where it is 1. "
                    "Transform the model again with an example of this size."
                )


def _is_like(value: Any, rank: int, dtype: torch.dtype) -> bool:
    if not isinstance(value, torch.Tensor) or value.dim() != rank:
        return False
    return value.dtype == dtype or (value.is_floating_point() and dtype.is_floating_point)


class _OtherStructureError(Exception):
    """Says what was expected."""


def _flattened(value: Any, structure: pytree.TreeSpec) -> list[Any]:
    """The values in a structure, in its order; a list is as good as a tuple, and the order of keys does not matter."""
    if structure.is_leaf():
        if isinstance(value, (list, tuple, dict)):
            raise _OtherStructureError("one value there")
        return [value]
    kind, children = structure.type, structure.children()
    if kind is dict:
        if not isinstance(value, dict) or value.keys() != set(structure.context):
            raise _OtherStructureError(f"a dictionary of {', '.join(map(repr, structure.context))}")
        parts = [value[key] for key in structure.context]
    elif kind in (list, tuple):
        if not isinstance(value, (list, tuple)) or len(value) != len(children):
            raise _OtherStructureError(f"{len(children)} in a {kind.__name__}")
        parts = list(value)
    else:  # a class of its own, with what else there is to it
        leaves, found = pytree.tree_flatten(value)
        if found != structure:
            other = " and another content" if (found.type, len(leaves)) == (kind, structure.num_leaves) else ""
            raise _OtherStructureError(f"a {kind.__name__} of {structure.num_leaves} values{other}")
        return leaves
    return [leaf for part, child in zip(parts, children, strict=True) for leaf in _flattened(part, child)]


def check_exported_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """See :meth:`ExportedInputs.check`, for a graph that was exported."""
    found = model.meta.get(EXPORTED_INPUTS) if isinstance(model, fx.GraphModule) else None
    if isinstance(found, ExportedInputs) and not torch.compiler.is_compiling():
        found.check(args, kwargs)
